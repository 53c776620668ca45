"""Real files of many kinds: counted frames, sizes, order, colours, agreement between codecs, and broken ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tokred.data.container import DecodeError
from tokred.data.decode import VideoInfo, decode, probe
from tokred.data.opening import open_source
from tokred.data.views import Views

ROW = re.compile(r"\| `([^`]+)` \|.*? (\w+) (\w+) (\d+)x(\d+), ([\d.]+) fps, (\d+) frames, .*?\|")
TURNED = re.compile(r"rotation -?90\b")


@pytest.fixture(scope="module")
def clips(shared: Path) -> Path:
    return _present(shared / "data" / "clips")


@pytest.fixture(scope="module")
def broken(shared: Path) -> Path:
    return _present(shared / "data" / "broken")


def _present(folder: Path) -> Path:
    if not (folder / "README.md").is_file():
        pytest.skip(f"the real clips are not here: {folder}")
    return folder


def luma(path: Path, numbers: list[int] | None = None, side: int = 48) -> np.ndarray:
    """(T, 48, 64) small grey pictures, for comparing contents."""
    small = Views((side, side * 4 // 3), (0.5,) * 3, (0.5,) * 3)
    pictures = decode(path, numbers)[0]
    return np.stack([small.resize(picture).float().mean(0).numpy() for picture in pictures])


def test_every_clip_has_the_counted_frames_and_the_size_of_its_table(clips: Path) -> None:
    text = (clips / "README.md").read_text()
    rows = [(match, match.group(0)) for match in ROW.finditer(text)]
    files = {path.name for path in clips.iterdir() if path.suffix != ".md"}
    assert {match[1] for match, _ in rows} == files
    wrong = []
    for match, row in rows:
        name, _, pixel_format, width, height, fps, frames = match.groups()
        expected = (int(frames), int(height), int(width))
        if TURNED.search(row):
            expected = (int(frames), int(width), int(height))
        info: VideoInfo = probe(clips / name)
        found = (info.frames, info.height, info.width)
        if found != expected or info.pixel_format != pixel_format or round(info.fps or 0, 3) != float(fps):
            wrong.append((name, expected, info))
        kinds = [note.kind for note in info.notes]
        assert kinds == (["several video streams, one read"] if "multistream" in name else []), (name, info.notes)
    assert not wrong


def holes_of_last_glyph(picture: np.ndarray) -> int:
    """Enclosed background regions of the rightmost character: 1 in 0 4 6 9, 2 in 8, none in 1 2 3 5 7."""
    from scipy import ndimage

    grey = picture.astype(float).mean(axis=2)
    ink = np.abs(grey - np.median(grey)) > 60
    labels, count = ndimage.label(ink, np.ones((3, 3)))
    last = max(ndimage.find_objects(labels), key=lambda box: box[1].stop)
    glyph = np.pad(labels[last] > 0, 1)
    if count > 1:  # the dot inside a zero is part of it
        glyph = np.pad(labels[last] == np.bincount(labels[last][labels[last] > 0]).argmax(), 1)
    return int(ndimage.label(~glyph)[1]) - 1


@pytest.mark.parametrize("name", ["counter_10frames_hevc.mp4", "counter_13frames_2fps_h264.mp4"])
def test_frames_that_show_their_number_come_in_order(clips: Path, name: str) -> None:
    pictures = decode(clips / name)[0]
    holes = [1, 0, 0, 0, 1, 0, 1, 0, 2, 1]
    assert [holes_of_last_glyph(picture) for picture in pictures] == [holes[i % 10] for i in range(len(pictures))]
    chosen = [7, 2, 9, 9]
    assert np.array_equal(decode(clips / name, chosen)[0], pictures[chosen])


@pytest.mark.parametrize(
    "name",
    [
        "av1.mp4",
        "hevc.mp4",
        "longgop_bframes_h264.mp4",
        "mjpeg.avi",
        "odd_size_321x239_h264.mkv",
        "vfr_h264.mkv",
        "vp9.webm",
    ],
)
def test_the_same_content_agrees_across_codecs(clips: Path, name: str) -> None:
    count = 30 if name == "mjpeg.avi" else 58
    reference = luma(clips / "asl_help_h264_30fps.mkv", list(range(count)))
    found = luma(clips / f"asl_help_{name}")
    assert found.shape == reference.shape
    distance = np.abs(found[:, None] - reference[None]).mean(axis=(2, 3))
    assert np.diagonal(distance).max() < 4  # grey levels of 255
    # frame by frame, not merely on the whole: where the picture moves, no other frame fits better
    moving = np.abs(np.diff(reference, axis=0)).mean(axis=(1, 2)) > 1
    for number in np.flatnonzero(moving[1:] & moving[:-1]) + 1:
        assert distance[number].argmin() == number


def test_order_of_display_is_kept_where_time_stamps_run_backwards(clips: Path) -> None:
    import av

    path = clips / "apply_eye_makeup_mpeg4_320x240.avi"
    with av.open(str(path)) as container:
        stamps = [frame.pts for frame in container.decode(video=0)]
    assert stamps != sorted(stamps)
    pictures = luma(path)
    jumps = np.abs(np.diff(pictures, axis=0)).mean()
    by_stamp = np.abs(np.diff(pictures[np.argsort(stamps)], axis=0)).mean()
    assert jumps < 0.8 * by_stamp


def test_rotated_phone_videos_have_their_displayed_shape(clips: Path) -> None:
    shapes = {angle: decode(clips / f"keyboard_3frames_rot{angle}.mov", [0])[0].shape for angle in (0, 90, 180, 270)}
    assert shapes == {0: (1, 320, 568, 3), 90: (1, 568, 320, 3), 180: (1, 320, 568, 3), 270: (1, 568, 320, 3)}


def test_colours_follow_the_tags_of_a_full_range_file(clips: Path) -> None:
    """Its bars hold (Y, U, V) = (81, 90, 240), (145, 54, 34), (41, 240, 110); by hand, BT.709 and full range give:"""
    picture = decode(clips / "testsrc_bt709_full_range_h264.mp4", [0])[0][0]
    flat = picture[::8, ::8].reshape(-1, 3).astype(int)
    for colour in ([255, 36, 10], [0, 203, 8], [13, 28, 249]):  # BT.601 would give 238, 14, 14 for the first
        assert (np.abs(flat - colour).max(axis=1) <= 3).sum() >= 300, colour


OUTCOMES = {
    "audio_only.mp4": r"no video stream \(streams found: 1 audio\)$",
    "bitflips_in_mdat.mp4": r"damaged: decoding stops after \d+ of 58 frames",
    "decord_corrupted.mp4": r"damaged: decoding stops after \d+ of 50 frames",
    "random_bytes.avi": r"not a video that FFmpeg can read",
    "text_named_mp4.mp4": r"a text file of 20 bytes, not a video$",
    "truncated_40pct.mkv": r"cut off: the data ends at 0\.\d+ s of the 1\.93 s in the header",
    "truncated_half_moov_first.mp4": r"(damaged: decoding stops after \d+ of 58 frames|cut off: the data ends)",
    "truncated_moov_missing.mp4": r"cut off: the index \(moov box\) of the MP4 file is missing",
    "zero_bytes.mp4": r"an empty file \(0 bytes\)$",
}


def test_every_broken_file_says_what_is_wrong_with_it(broken: Path) -> None:
    for name, pattern in OUTCOMES.items():
        with pytest.raises(DecodeError, match=f"{re.escape(name)}: {pattern}"):
            probe(broken / name)


def test_only_the_misnamed_file_of_the_broken_ones_gives_a_clip(broken: Path) -> None:
    source = open_source(broken, frames=16, size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    (batch,) = source.batches(8)
    assert batch.names == ["mkv_named_mp4.mp4"]
    assert len(source) == len(OUTCOMES) + 1
    assert sorted(failure.path for failure in source.failures) == sorted(OUTCOMES)


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_all_clips_become_a_data_set_without_labels(clips: Path, sampling: str) -> None:
    source = open_source(clips, frames=16, size=32, mean=(0.5,) * 3, std=(0.5,) * 3, sampling=sampling, clips=10)
    batches = list(source.batches(8))
    assert [item for batch in batches for item in batch.items] == list(range(10))
    assert source.failures == []
    assert all(batch.clips.shape[1:] == (3, 16, 32, 32) for batch in batches)
    assert all(bool(torch.isfinite(batch.clips).all()) for batch in batches)
    assert any(note.startswith("padded with repeated frames: ") for note in source.notes)
