"""Sizes, places and promises of frames, then squares."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tokred.anchors import side
from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.compose import compose
from tokred.dry import dry_run
from tokred.methods import RandomDrop, STTSHeuristic
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid
from tokred.two_stage import best

VIDEO, IMAGE, *_ = default_backbones()[:2]

VIT = Geometry(
    depth=12, dim=384, heads=6, head_dim=64, mlp_hidden=1536, grid=Grid(8, 14, 14), prefix=0, classes=400,
    kernel=(2, 16, 16),
)  # fmt: skip


@pytest.mark.parametrize(
    ("time", "space", "frames", "area"),
    [
        (0.875, 0.863, 7, 169),
        (0.75, 0.863, 6, 169),
        (0.625, 0.863, 5, 169),
        (0.5, 0.7367, 4, 144),
        (0.375, 0.6174, 3, 121),
    ],
)
def test_published_ratios_leave_the_published_frames_and_squares(
    time: float, space: float, frames: int, area: int
) -> None:
    plan = dry_run(STTSHeuristic(time=time, space=space), VIT)
    assert plan.attention == (frames * 196,) * 3 + (frames * area,) * 9


def test_keep_is_split_between_frames_and_squares_and_told() -> None:
    reducer = STTSHeuristic(0.5)
    assert dry_run(reducer, VIT).final == 5 * 12 * 12
    assert reducer.describe(VIT) == ["5 of 8 frames, then one of 9 squares of 12 x 12 in each frame of 14 x 14"]
    assert STTSHeuristic().describe(VIT) == []
    assert STTSHeuristic().steps(VIT) == {}


def test_on_windows_squares_are_those_of_the_second_stage() -> None:
    if len(default_backbones()) < 3:
        pytest.skip("no windows backbone here")
    host, _ = default_backbones()[2].build()
    fast = attach(host, STTSHeuristic(time=0.5, space=0.5))
    second = fast.geometry.stage_grid(1)
    assert fast.plan is not None
    assert fast.notes[-1].endswith(f"in each frame of {second.h} x {second.w}")
    assert fast.plan.grids[fast.geometry.stages[0].depth] == Grid(
        second.t // 2, side(second.h, 0.5), side(second.w, 0.5)
    )


def test_on_windows_keep_leaves_frames_whole_until_there_is_one() -> None:
    if len(default_backbones()) < 3:
        pytest.skip("no windows backbone here")
    host, _ = default_backbones()[2].build()
    t = attach(host, STTSHeuristic()).geometry.grid.t
    fast = attach(host, STTSHeuristic(0.5))
    assert fast.notes == (f"{(t + 1) // 2} of {t} frames",)
    assert "one of" in attach(host, STTSHeuristic(0.5 / t)).notes[-1], "one frame cannot give the rest"


def test_an_image_is_one_frame_whose_square_gets_all_of_keep() -> None:
    host, _ = IMAGE.build()
    fast = attach(host, STTSHeuristic(0.5))
    assert fast.notes == ("one of 9 squares of 6 x 6 in each frame of 8 x 8",)
    assert fast.plan is not None
    assert fast.plan.final - fast.geometry.prefix == 36


def test_the_whole_range_of_keep_is_possible_and_ends_at_one_token() -> None:
    strength = STTSHeuristic().strength_range(VIT)
    counts = [dry_run(STTSHeuristic(keep), VIT).final for keep in (1.0, 0.8, 0.5, 0.2, 0.05, strength.strongest)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 1568
    assert counts[-1] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time": 0.1}, r"time = 0.1 leaves none of 8 frames: allowed is 0.125..1"),
        ({"space": 0.001}, r"space = 0.001 leaves none of 14 x 14: allowed is 0.0051..1"),
        ({"keep": 0.5, "time_at": 4, "space_at": 3}, "space_at = 3 is before time_at = 4: frames go first"),
        ({"keep": 0.5, "space_at": 12}, r"space_at = 12 is not in 0..11"),
        ({"keep": 0.5, "time_at": -1}, r"time_at = -1 is not in 0..11"),
    ],
)
def test_impossible_settings_are_refused_before_any_compute(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        STTSHeuristic(**settings).check(VIT)


def test_given_ratios_leave_no_strength_to_solve_for() -> None:
    with pytest.raises(ScheduleError, match="has no strength to solve for: its time and space are given"):
        STTSHeuristic(time=0.5).strength_range(VIT)


def test_frames_that_are_not_whole_any_more_are_refused() -> None:
    host, _ = VIDEO.build()
    composed = compose(RandomDrop(keep=0.5, at=(0,)), STTSHeuristic(space=0.5, space_at=1))
    with pytest.raises(ScheduleError, match="needs whole frames of 4 x 6; 48 tokens are in no groups"):
        attach(host, composed)


def test_the_best_are_in_order_ties_go_to_the_earlier_and_nan_is_kept_so_that_it_shows() -> None:
    nan, inf = float("nan"), float("inf")
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0], [nan, 0.0, nan, -1.0], [inf, -inf, 5.0, nan]])
    assert best(scores, 2).tolist() == [[1, 2], [0, 2], [0, 3]]
