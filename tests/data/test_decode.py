"""Which frames come out of a video, in which order, how they look, and what is said about the file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokred.data import decode as module
from tokred.data.container import DecodeError
from tokred.data.decode import decode, probe, read_frames

MakeVideo = Callable[..., Path]
CodesOf = Callable[[np.ndarray], list[int]]

FORMATS = {
    "h264.mp4": {},
    "h264_bframes.mp4": {"options": {"bf": "3", "g": "100"}},
    "h264_10bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_444_odd.mkv": {"pix_fmt": "yuv444p", "size": (47, 65)},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_bframes.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "prores.mov": {"codec": "prores", "pix_fmt": "yuv422p10le"},
    "mpeg1.mpg": {"codec": "mpeg1video"},
    "mpeg2.ts": {"codec": "mpeg2video"},
    "ffv1.mkv": {"codec": "ffv1"},
    "flv1.flv": {"codec": "flv"},
    "wmv2.wmv": {"codec": "wmv2", "format": "asf"},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "raw.h264": {"format": "h264"},
    "variable_rate.mkv": {"times": [i * i * 7 for i in range(20)]},
}


def set_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into the track header of an MP4 file, where an identity stands."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    assert struct.unpack_from(">5i", data, place) == (65536, 0, 0, 0, 65536)
    struct.pack_into(">5i", data, place, *(round(65536 * value) for value in (a, b, 0, c, d)))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_its_frames_in_order(
    tmp_path: Path, make_video: MakeVideo, codes_of: CodesOf, name: str
) -> None:
    path = make_video(tmp_path / name, 20, **FORMATS[name])
    pictures, info = decode(path)
    height, width = FORMATS[name].get("size", (48, 64))
    assert pictures.shape == (20, height, width, 3)
    assert pictures.dtype == np.uint8
    assert codes_of(pictures) == list(range(20))
    assert (info.frames, info.height, info.width, info.notes) == (20, height, width, ())


def test_chosen_frames_come_in_the_asked_order_with_repeats(
    tmp_path: Path, make_video: MakeVideo, codes_of: CodesOf
) -> None:
    path = make_video(tmp_path / "a.mp4", 30, options={"bf": "3"})
    wanted = [29, 3, 3, 0, 17]
    assert codes_of(decode(path, wanted)[0]) == wanted
    assert np.array_equal(decode(path, wanted)[0], decode(path)[0][wanted])


@pytest.mark.parametrize("wanted", [[30], [-1], [0, 99]])
def test_frame_outside_the_video_is_refused_with_the_range(
    tmp_path: Path, make_video: MakeVideo, wanted: list[int]
) -> None:
    path = make_video(tmp_path / "a.mp4", 30)
    with pytest.raises(IndexError, match=r"frame (30|-1|99) of a video with frames 0\.\.29"):
        decode(path, wanted)


def test_a_single_frame_is_a_video(tmp_path: Path, make_video: MakeVideo) -> None:
    pictures, info = decode(make_video(tmp_path / "a.mp4", 1))
    assert pictures.shape == (1, 48, 64, 3)
    assert info.frames == 1


def test_only_wanted_frames_are_converted_and_kept(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 200)
    seen: list[tuple[int, ...]] = []

    def keep(picture: np.ndarray) -> int:
        seen.append(picture.shape)
        return int(picture.mean())

    kept, info = read_frames(path, lambda count: [0, count // 2, count - 1, 0], keep)
    assert (sorted(kept), info.frames) == ([0, 100, 199], 200)
    assert seen == [(48, 64, 3)] * 3


@pytest.mark.parametrize("guess", [15, 23])
def test_wrong_number_of_packets_is_corrected_by_a_second_choice(
    tmp_path: Path, make_video: MakeVideo, codes_of: CodesOf, monkeypatch: pytest.MonkeyPatch, guess: int
) -> None:
    from dataclasses import replace

    path = make_video(tmp_path / "a.mkv", 20)
    true_index = module.read_index
    monkeypatch.setattr(module, "read_index", lambda p: replace(true_index(p), packets=guess))
    totals: list[int] = []

    def choose(total: int) -> list[int]:
        totals.append(total)
        return [0, total - 1]

    kept, info = read_frames(path, choose)
    assert totals == [guess, 20]
    assert info.frames == 20
    assert codes_of(np.stack([kept[0], kept[19]])) == [0, 19]


def test_wrong_frame_count_in_the_header_is_remarked(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.avi", 20, codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, 21)  # dwLength
    path.write_bytes(data)
    info = probe(path)
    assert info.frames == 20
    assert [(note.kind, note.detail) for note in info.notes] == [
        ("frame count in the header is wrong", "21 announced, 20 decoded")
    ]


def test_frames_that_an_edit_list_hides_are_not_counted(
    tmp_path: Path, make_video: MakeVideo, codes_of: CodesOf
) -> None:
    path = make_video(tmp_path / "a.mp4", 20, options={"bf": "2"})
    data = bytearray(path.read_bytes())
    edit, media = data.index(b"elst") + 12, data.index(b"mdhd") + 4
    duration, start = struct.unpack_from(">Ii", data, edit)
    ticks = struct.unpack_from(">I", data, media + 12)[0]
    struct.pack_into(">Ii", data, edit, duration * 15 // 20, start + ticks * 5 // 25)  # skip five frames at 25 fps
    path.write_bytes(data)
    assert module.read_index(path).packets == 15
    pictures, info = decode(path)
    assert codes_of(pictures) == list(range(5, 20))
    assert [note.detail for note in info.notes] == ["20 announced, 15 decoded"]


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # a phone held upright: turned clockwise for display
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    ],
)
def test_rotation_and_mirror_tags_are_applied(
    tmp_path: Path, make_video: MakeVideo, matrix: tuple[int, int, int, int], turn: Callable
) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    upright = decode(path)[0]
    pictures, info = decode(set_matrix(path, *matrix))
    assert np.array_equal(pictures, np.stack([turn(picture) for picture in upright]))
    assert (info.height, info.width) == pictures.shape[1:3]
    assert info.notes == ()


def test_rotation_that_is_no_right_angle_is_ignored_with_a_note(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 3)
    upright = decode(path)[0]
    pictures, info = decode(set_matrix(path, 0.8, 0.6, -0.6, 0.8))
    assert np.array_equal(pictures, upright)
    assert [note.kind for note in info.notes] == ["rotation tag is no multiple of 90 degrees, ignored"]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("colours", ["ITU601", "ITU709"])
def test_colours_follow_the_matrix_and_range_of_the_file(tmp_path: Path, colours: str, full_range: bool) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    wanted = np.array([[220, 40, 30], [30, 200, 60], [40, 50, 210], [250, 250, 250]], np.uint8)
    picture = np.repeat(np.repeat(wanted[None], 32, axis=0), 16, axis=1)
    span = ColorRange.JPEG if full_range else ColorRange.MPEG
    path = tmp_path / "colours.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv444p"
        context = stream.codec_context
        context.colorspace, context.color_range = (1 if colours == "ITU709" else 6), int(span)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace=Colorspace[colours], dst_color_range=span)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = decode(path)[0][0].astype(int)
    assert np.abs(found - picture).max() <= 4


def test_picture_size_that_changes_is_scaled_to_the_first_and_remarked(tmp_path: Path, make_video: MakeVideo) -> None:
    small = make_video(tmp_path / "small.h264", 5, format="h264")
    large = make_video(tmp_path / "large.h264", 5, size=(96, 128), format="h264")
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    pictures, info = decode(both)
    assert pictures.shape == (10, 48, 64, 3)
    assert [note.kind for note in info.notes] == ["picture size changes, scaled to the first"]


def test_damage_is_refused_whichever_frames_are_wanted(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 60, size=(96, 128), options={"movflags": "faststart", "g": "10"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"damaged: decoding stops after \d+ of 60 frames \(Invalid data"):
        decode(path, [0])


def test_same_file_decodes_to_the_same_pictures_twice(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 20, options={"bf": "3"})
    assert np.array_equal(decode(path)[0], decode(path)[0])
