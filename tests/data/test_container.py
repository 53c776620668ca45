"""Why a file cannot be read, which stream is read, and how a missing end is noticed."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tokred.data.container import DecodeError, PacketIndex, _missing, open_video, read_index
from tokred.data.decode import decode, probe

MakeVideo = Callable[..., Path]


def reason(path: Path) -> str:
    with pytest.raises(DecodeError, match=r": \w") as caught:
        probe(path)
    assert "\n" not in caught.value.reason
    assert str(caught.value) == f"{path}: {caught.value.reason}"
    return caught.value.reason


def with_sound(path: Path, seconds: float = 0.1, **streams: tuple[int, int, int]) -> Path:
    """A file with an AAC track and video streams of one frame, (height, width, disposition)."""
    import av

    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        videos = []
        for height, width, disposition in streams.values():
            video = container.add_stream("mjpeg", rate=10)
            video.height, video.width, video.pix_fmt = height, width, "yuvj420p"
            video.disposition = disposition
            videos.append(video)
        for video in videos:
            frame = av.VideoFrame.from_ndarray(np.zeros((video.height, video.width, 3), np.uint8), format="rgb24")
            frame = frame.reformat(format="yuvj420p")
            frame.pts = 0
            container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for number in range(int(seconds * 44100 / 1024) + 1):
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.rate, tone.pts = 44100, 1024 * number
            container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
    return path


def test_error_survives_pickling_as_worker_processes_need() -> None:
    error = pickle.loads(pickle.dumps(DecodeError(Path("a.mp4"), "an empty file")))
    assert (error.path, error.reason) == ("a.mp4", "an empty file")


def test_what_is_no_video_is_refused_with_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video")
    (tmp_path / "noise.avi").write_bytes(random.Random(0).randbytes(5000))
    assert reason(tmp_path / "missing.mp4") == "no such file"
    assert reason(tmp_path) == "a folder, not a video file"
    assert reason(tmp_path / "empty.mp4") == "an empty file (0 bytes)"
    assert reason(tmp_path / "text.mp4") == "a text file of 16 bytes, not a video"
    assert reason(tmp_path / "noise.avi").startswith("not a video that FFmpeg can read (Invalid data")


def test_unreadable_file_is_refused(tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str = "r") -> None:
        raise PermissionError(13, "Permission denied", str(self))

    path = make_video(tmp_path / "a.mp4", 2)
    monkeypatch.setattr(Path, "open", refuse)
    assert reason(path) == "cannot be read: Permission denied"


def test_sound_without_pictures_is_no_video(tmp_path: Path) -> None:
    assert reason(with_sound(tmp_path / "tone.mp4")) == "no video stream (streams found: 1 audio)"


def test_cover_picture_is_no_video(tmp_path: Path) -> None:
    from av.stream import Disposition

    path = with_sound(tmp_path / "song.mp4", cover=(64, 64, Disposition.attached_pic.value))
    assert reason(path) == "no video stream (streams found: 1 audio, a cover picture)"


def test_default_stream_is_read_and_the_choice_recorded(tmp_path: Path) -> None:
    from av.stream import Disposition

    path = with_sound(tmp_path / "two.mkv", angle=(96, 128, 0), main=(48, 64, Disposition.default.value))
    info = probe(path)
    assert (info.height, info.width, info.stream) == (48, 64, 2)
    assert [note.kind for note in info.notes] == ["several video streams, one read"]
    assert "stream 2 of [1, 2], 64x48 mjpeg" in info.notes[0].detail


def test_first_stream_is_read_when_several_are_default(tmp_path: Path) -> None:
    from av.stream import Disposition

    default = Disposition.default.value
    path = with_sound(tmp_path / "two.mp4", first=(48, 64, default), larger=(96, 128, default))
    assert probe(path).stream == 1


@pytest.mark.parametrize("name", ["colon a:b.mp4", "ünï çödé.mp4", "per%03dcent.mp4", "http:x.mp4"])
def test_file_names_are_never_taken_for_protocols_or_patterns(tmp_path: Path, make_video: MakeVideo, name: str) -> None:
    assert probe(make_video(tmp_path / "plain.mp4", 3).rename(tmp_path / name)).frames == 3


def test_relative_path_with_a_colon(tmp_path: Path, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "plain.mp4", 3).rename(tmp_path / "a:b.mp4")
    monkeypatch.chdir(tmp_path)
    assert probe("a:b.mp4").frames == 3


def test_wrong_suffix_does_not_matter(tmp_path: Path, make_video: MakeVideo) -> None:
    assert probe(make_video(tmp_path / "a.mkv", 5).rename(tmp_path / "a.mp4")).frames == 5


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_mp4_without_its_end_has_no_index(tmp_path: Path, make_video: MakeVideo, cut: Callable, share: float) -> None:
    path = cut(make_video(tmp_path / "a.mp4", 60, size=(96, 128)), share)
    assert reason(path) == "cut off: the index (moov box) of the MP4 file is missing or incomplete"


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.webm", "libvpx-vp9", "yuv420p"), ("a.mkv", "mpeg4", "yuv420p"), ("a.avi", "mjpeg", "yuvj420p")],
)
def test_silent_short_read_is_refused(
    tmp_path: Path, make_video: MakeVideo, cut: Callable, name: str, codec: str, pix_fmt: str
) -> None:
    path = make_video(tmp_path / name, 100, codec=codec, pix_fmt=pix_fmt)
    assert probe(path).notes == ()
    why = reason(cut(path, 0.7))
    # AVI may also stop in the middle of a picture, with an error of the decoder
    assert why.startswith(("cut off: the data ends at ", "damaged: decoding stops after "))


def test_small_missing_end_is_remarked_and_not_refused(tmp_path: Path, make_video: MakeVideo, cut: Callable) -> None:
    path = cut(make_video(tmp_path / "a.mkv", 100, size=(96, 128), codec="ffv1"), 0.94)
    info = probe(path)
    assert 90 <= info.frames < 97
    assert [note.kind for note in info.notes] == ["ends earlier than its header says"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_sound_that_goes_on_after_the_pictures_is_not_a_missing_end(tmp_path: Path, name: str) -> None:
    from av.stream import Disposition

    path = with_sound(tmp_path / name, seconds=3, film=(48, 64, Disposition.default.value))
    # without the length of each stream there is only that of the file, which is the sound's
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOX"))
    assert (probe(path).frames, probe(path).notes) == (1, ())


def test_stream_that_announces_more_than_it_holds_is_refused(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mkv", 20)
    data = path.read_bytes()
    assert data.count(b"00:00:00.800000000") == 1
    path.write_bytes(data.replace(b"00:00:00.800000000", b"00:00:02.800000000"))
    assert reason(path).startswith("cut off: the data ends at 0.80 s of the 2.80 s in the header")


@pytest.mark.parametrize(("form", "missing"), [("matroska,webm", (9.0, 10.0)), ("mpegts", (0.0, 0.0))])
def test_duration_that_ffmpeg_only_estimates_proves_nothing(form: str, missing: tuple[float, float]) -> None:
    container = SimpleNamespace(format=SimpleNamespace(name=form), duration=10_000_000)
    stream = SimpleNamespace(duration=None, time_base=None, metadata={})
    assert _missing(container, stream, 1.0, 1.0) == missing


@pytest.mark.parametrize(
    ("missing", "step", "refused", "remarked"),
    [(0.0, 0.04, False, False), (0.3, 0.04, False, True), (1.01, 0.04, True, True), (1.01, 0.6, False, False)],
)
def test_tolerance_is_a_tenth_or_two_frames(missing: float, step: float, refused: bool, remarked: bool) -> None:
    index = PacketIndex(100, 0, missing, announced_s=10.0, step_s=step, error=None)
    assert index.cut_off is refused
    assert (index.shortfall() is not None) is remarked


def test_index_counts_frames_without_decoding(tmp_path: Path, make_video: MakeVideo) -> None:
    index = read_index(make_video(tmp_path / "a.mkv", 33, options={"bf": "3"}))
    assert (index.packets, index.announced, index.error) == (33, 0, None)
    assert index.announced_s == pytest.approx(33 / 25, abs=0.01)
    assert index.missing_s == pytest.approx(0, abs=0.01)


def test_one_decoding_thread_unless_asked_for_more(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 5)
    with open_video(path) as opened:
        assert opened.stream.thread_count == 1
        assert opened.stream.codec_context.thread_type.name == "NONE"
    with open_video(path, threads=2) as opened:
        assert opened.stream.thread_count == 2
    assert np.array_equal(decode(path, threads=2)[0], decode(path)[0])
