"""Frames of a video one after another: the same pictures as decoding them all, however few are held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokred.data.container import DecodeError
from tokred.data.decode import decode
from tokred.data.frames import frames_of


@pytest.fixture(scope="module")
def clips(shared: Path) -> Path:
    folder = shared / "data" / "clips"
    if not folder.is_dir():
        pytest.skip(f"the real clips are not here: {folder}")
    return folder


@pytest.mark.parametrize(
    "name", ["counter_10frames_hevc.mp4", "keyboard_3frames_rot90.mov", "unordered_pts_4frames.mov"]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_they_are_the_decoded_pictures_in_order(clips: Path, name: str, stride: int) -> None:
    every, _ = decode(clips / name)
    found = list(frames_of(clips / name, stride=stride))
    assert len(found) == len(every[::stride])
    assert all(np.array_equal(a, b) for a, b in zip(found, every[::stride], strict=True))


def test_reading_stops_where_the_reader_stops(clips: Path) -> None:
    frames = frames_of(clips / "people_static_cam_h264_10fps_1394f.mp4")
    assert next(frames).shape[2] == 3
    frames.close()


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(DecodeError, match=r"text\.mp4"):
        list(frames_of(tmp_path / "text.mp4"))
