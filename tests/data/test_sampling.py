"""Frame numbers of clips: in range, in order, as many as asked, and those of the published evaluations."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokred.data.sampling import MODES, Sampling

settings_of = st.builds(
    Sampling,
    frames=st.integers(1, 40),
    mode=st.sampled_from(MODES),
    stride=st.integers(1, 9),
    clips=st.integers(1, 7),
)
totals = st.integers(1, 2000)


@given(settings_of, totals)
def test_every_clip_has_the_asked_number_of_frames_in_range_and_in_order(sampling: Sampling, total: int) -> None:
    clips = sampling.indices(total)
    assert len(clips) == sampling.clips
    for clip in clips:
        assert len(clip) == sampling.frames
        assert clip[0] >= 0
        assert clip[-1] < total
        assert all(a <= b for a, b in pairwise(clip))


@given(settings_of, totals)
def test_frames_repeat_exactly_when_padding_is_reported(sampling: Sampling, total: int) -> None:
    different = min(len(set(clip)) for clip in sampling.indices(total))
    padding = sampling.padding(total)
    assert (padding is None) == (different == sampling.frames)
    if padding is not None:
        assert padding.startswith(f"{different} frame")
        assert padding.endswith(f" of {sampling.frames}")


@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 7), totals)
def test_dense_clips_step_by_the_stride_from_the_first_to_the_last_window(
    frames: int, stride: int, clips: int, total: int
) -> None:
    found = Sampling(frames, "dense", stride, clips).indices(total)
    strided = list(range(0, total, stride))
    if len(strided) >= frames:
        assert found[0] == strided[:frames]
        assert found[-1] == strided[-frames:]
        assert all(b - a == stride for clip in found for a, b in pairwise(clip))
    else:
        assert all(clip == strided + [strided[-1]] * (frames - len(strided)) for clip in found)


def videomae_kinetics(total: int, clips: int, frames: int = 16, stride: int = 4) -> list[list[int]]:
    """Frame numbers of VideoMAE's K400 evaluation, in its own floating point steps."""
    every = list(range(0, total, stride))
    while len(every) < frames:
        every.append(every[-1])
    step = max((len(every) - frames) / (clips - 1), 0)
    return [every[int(clip * step) : int(clip * step) + frames] for clip in range(clips)]


def videomae_something(total: int, frames: int = 16) -> list[list[int]]:
    """Frame numbers of VideoMAE's SSv2 evaluation, two clips, in its own floating point steps."""
    tick = total / frames
    both = sorted([int(tick / 2 + tick * x) for x in range(frames)] + [int(tick * x) for x in range(frames)])
    return [both[clip::2] for clip in range(2)]


@pytest.mark.parametrize("total", [*range(1, 140), 250, 300, 1394])
def test_views_of_the_published_evaluations(total: int) -> None:
    assert Sampling(16, "dense", 4, 5).indices(total) == videomae_kinetics(total, 5)
    assert Sampling(16, "uniform", clips=2).indices(total) == videomae_something(total)


@given(st.integers(1, 40), st.integers(1, 7), totals)
def test_uniform_clips_take_one_frame_from_every_segment(frames: int, clips: int, total: int) -> None:
    edges = np.arange(frames + 1) * total / frames
    for clip in Sampling(frames, "uniform", clips=clips).indices(total):
        assert all(np.floor(edges[i]) <= number < edges[i + 1] for i, number in enumerate(clip))


def test_one_clip_is_the_centre() -> None:
    assert Sampling(4, "dense", 2).indices(20) == [[6, 8, 10, 12]]
    assert Sampling(4, "uniform").indices(20) == [[2, 7, 12, 17]]
    assert Sampling(1, "dense", 1).indices(9) == [[4]]


def test_three_frames_for_sixteen_are_repeated_and_said_to_be() -> None:
    assert Sampling(16, "dense", 1).indices(3) == [[0, 1] + [2] * 14]
    assert Sampling(16, "uniform").indices(3) == [[0] * 5 + [1] * 6 + [2] * 5]
    assert Sampling(16, "dense", 1).padding(3) == "3 frames of 16"
    assert Sampling(16, "uniform").padding(1) == "1 frame of 16"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 0}, "frames = 0 must be at least 1"),
        ({"frames": 8, "stride": 0}, "stride = 0 must be at least 1"),
        ({"frames": 8, "clips": -1}, "clips = -1 must be at least 1"),
        ({"frames": 8, "mode": "random"}, "mode = 'random' is not one of dense, uniform"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)


def test_a_video_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="total = 0 frames"):
        Sampling(8).indices(0)
