"""A video through a gated model: clips as they come, cost with flush and steady apart, agreement."""

from __future__ import annotations

import gc
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tokred.backbones.spec import BackboneSpec
from tokred.run.stream import StreamSettings, _clips, stream

SPEC = BackboneSpec("test", frames=4, size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames: grey grows by 6 a frame in the left half, the right half stands still."""
    path = tmp_path_factory.mktemp("video") / "grey.mp4"
    with av.open(str(path), "w") as out:
        stream_ = out.add_stream("mpeg4", rate=10)
        stream_.width = stream_.height = 64
        stream_.pix_fmt = "yuv420p"
        for i in range(40):
            picture = np.full((64, 64, 3), 128, np.uint8)
            picture[:, :32] = 6 * i
            out.mux(stream_.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream_.encode())
    return path


def greys(clip: torch.Tensor) -> list[int]:
    """Number of each frame of a clip (1, 3, T, 16, 16), read off its left half."""
    return [round(float((x[:, :, :4].mean() * 0.5 + 0.5) * 255) / 6) for x in clip[0].unbind(1)]


def test_clips_overlap_by_all_but_the_hop(video: Path) -> None:
    found = [(frame, greys(clip)) for frame, clip in _clips(video, SPEC, 1, 2, None, [])]
    assert found[0] == (3, [0, 1, 2, 3])
    assert found[1] == (5, [2, 3, 4, 5])
    assert len(found) == 19
    strided = [(frame, greys(clip)) for frame, clip in _clips(video, SPEC, 3, 1, 2, [])]
    assert strided == [(9, [0, 3, 6, 9]), (12, [3, 6, 9, 12])]


def test_a_short_video_is_one_clip_with_its_last_frame_repeated(video: Path) -> None:
    notes: list[str] = []
    ((frame, clip),) = _clips(video, SPEC, 20, 1, None, notes)
    assert (frame, greys(clip)) == (20, [0, 20, 20, 20])
    assert notes == ["the video has 2 sampled frames, the last is repeated to 4"]


def test_as_many_pictures_are_held_as_a_clip_has(video: Path) -> None:
    most = 0
    for _ in _clips(video, SPEC, 1, 1, None, []):
        gc.collect()
        held = sum(type(o) is torch.Tensor and o.dtype == torch.uint8 and o.ndim == 3 for o in gc.get_objects())
        most = max(most, held)
    assert most <= 2 * SPEC.frames


def test_flush_and_steady_frames_are_apart(video: Path) -> None:
    found = stream(StreamSettings(str(video), reducer="eventful:r=100", frames=4, hop=4, check=2))
    rows, summary = found["rows"], found["summary"]
    assert [row["flush"] for row in rows] == [True, False, False, False]
    assert [row["frame"] for row in rows] == [15, 19, 23, 27]
    assert rows[0]["macs"] == found["unreduced_macs"] == summary["flush_macs"]
    assert rows[1]["updates"] == {"qkv": 100.0, "projection": 100.0, "mlp": 100.0}
    assert rows[0]["updates"] is None
    assert 0.2 < summary["steady_share"] < 0.4
    assert summary["mean_macs"] == pytest.approx(sum(row["macs"] for row in rows) / 4)
    assert summary["checked"] == 2
    assert "kl" not in rows[1]
    assert rows[0]["same_top1"]
    assert rows[0]["logit_error"] < 1e-5
    assert found["state_bytes"] > 0


def test_every_token_agrees_and_the_content_decides_with_a_threshold(video: Path) -> None:
    every = stream(StreamSettings(str(video), reducer="eventful:fraction=1", frames=3, hop=4))
    assert every["summary"]["same_top1"] == 1
    assert every["summary"]["logit_error"] < 1e-4
    some = stream(StreamSettings(str(video), reducer="eventful:threshold=1", frames=3, hop=4))
    sent = [row["updates"]["qkv"] for row in some["rows"][1:]]
    assert all(0 < number < 512 for number in sent)
    assert sent[0] != sent[1]


def test_a_factorised_model_is_gated_inside_each_clip(video: Path) -> None:
    found = stream(StreamSettings(str(video), backbone="vivit_nano", reducer="eventful:r=16", frames=2))
    assert found["steps_per_call"] == 8
    assert [row["flush"] for row in found["rows"]] == [False, False]
    assert found["rows"][0]["macs"] == found["rows"][1]["macs"] < found["unreduced_macs"]


def test_methods_that_do_not_gate_are_refused(video: Path) -> None:
    with pytest.raises(ValueError, match="sta:r=3 does not gate over time"):
        stream(StreamSettings(str(video), reducer="sta:r=3"))
