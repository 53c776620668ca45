from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokred.backbones.geometry import StageSites
from tokred.schedule import Schedule, ScheduleError, Step


@given(st.integers(4, 48))
def test_named_places(depth: int) -> None:
    assert Schedule(drop=1).blocks(depth) == tuple(range(depth))
    assert Schedule("thirds", drop=1).blocks(depth) == (0, depth // 3, (2 * depth) // 3)
    assert Schedule("quarters", drop=1).blocks(depth) == (depth // 4, depth // 2, 3 * depth // 4)
    assert Schedule("third", drop=1).blocks(depth) == (depth // 3,)
    assert Schedule("early", drop=1).blocks(depth) == (0, 1, 2, 3)
    assert Schedule("early", drop=1).blocks(depth % 4) == tuple(range(depth % 4))


@pytest.mark.parametrize(("depth", "blocks"), [(12, (0, 4, 8)), (24, (0, 8, 16)), (32, (0, 10, 21))])
def test_thirds_are_where_the_official_code_of_sta_acts(depth: int, blocks: tuple[int, ...]) -> None:
    assert Schedule("thirds", drop=1).blocks(depth) == blocks


@given(st.integers(0, 60), st.floats(-1, 1), st.integers(2, 32))
def test_an_inflection_is_tomes_linear_schedule(r: int, f: float, depth: int) -> None:
    low = int(r * (1 - f))
    step = (2 * r - low - low) / (depth - 1)
    found = [s.amount for s in Schedule(drop=r, shape=f).steps(depth)]
    assert found == [int(low + step * i) for i in range(depth)]


def test_the_decreasing_schedule_of_tomes_readme() -> None:
    found = [s.amount for s in Schedule(drop=16, shape=-1).steps(12)]
    assert found == [32, 29, 26, 23, 20, 17, 14, 11, 8, 5, 2, 0]


def test_an_inflection_over_one_block_does_not_divide_by_zero() -> None:
    assert [s.amount for s in Schedule(drop=4, shape=-1).steps(1)] == [8]


def test_shapes_of_a_single_amount() -> None:
    assert [s.amount for s in Schedule("thirds", drop=6).steps(12)] == [6, 6, 6]
    assert [s.amount for s in Schedule("thirds", drop=6, shape="increasing").steps(12)] == [6, 12, 24]
    halves = Schedule("thirds", drop=6, shape="decreasing").steps(12)
    assert [s.amount for s in halves] == [6, 3, Fraction(3, 2)]
    assert [(s.block, s.index) for s in halves] == [(0, 0), (4, 1), (8, 2)]


def test_lists_give_each_step_its_own_and_drops_and_shares_are_padded() -> None:
    assert [s.amount for s in Schedule((1, 2, 5), drop=(4, 2)).steps(6)] == [4, 2, 0]
    assert [s.amount for s in Schedule((1, 2, 5), keep=(0.5,)).steps(6)] == [0.5, 1.0, 1.0]
    assert [s.amount for s in Schedule((1, 2), tokens=(9, 4)).steps(6)] == [9, 4]
    assert [s.amount for s in Schedule([1, 2], drop=[4, 2]).steps(6)] == [4, 2]  # type: ignore[arg-type]


@given(st.integers(1, 500), st.floats(0.001, 1))
def test_a_share_is_rounded_up_in_double_precision(n: int, keep: float) -> None:
    assert Step(0, 0, "keep", keep).left(n) == max(1, math.ceil(keep * n))


def test_shares_round_as_python_does_also_where_that_surprises() -> None:
    assert Step(0, 0, "keep", 0.55).left(100) == 56  # 0.55 * 100 is a little above 55
    assert Step(0, 0, "keep", 0.07).left(100) == 8


def test_amounts_and_counts() -> None:
    assert Step(0, 0, "drop", 3).left(10) == 7
    assert Step(0, 0, "drop", Fraction(7, 2)).left(10) == 7
    assert Step(0, 0, "tokens", 4).left(10) == 4


@given(st.integers(1, 500), st.floats(0.001, 0.999))
def test_a_share_to_drop_is_rounded_down_in_double_precision(n: int, share: float) -> None:
    (step,) = Schedule((0,), drop=share).steps(1)
    assert (step.kind, step.left(n)) == ("share", n - int(n * share))


def test_shares_and_numbers_to_drop_may_be_mixed() -> None:
    steps = Schedule(drop=(0.29, 1, 0, 0.5)).steps(5)
    assert [s.kind for s in steps] == ["share", "drop", "drop", "share", "drop"]
    assert [s.left(100) for s in steps] == [72, 99, 100, 50, 100]  # 100 * 0.29 is a little below 29
    assert [s.is_noop for s in steps] == [False, False, True, False, True]
    assert [s.left(100) for s in Schedule((1, 3), drop=0.25).steps(5)] == [75, 75]


def test_steps_that_leave_everything() -> None:
    assert Step(0, 0, "drop", 0).is_noop
    assert Step(0, 0, "keep", 1.0).is_noop
    assert not Step(0, 0, "tokens", 4).is_noop
    assert not Step(0, 0, "keep", 0.999).is_noop


@pytest.mark.parametrize(
    ("step", "n", "message"),
    [
        (Step(3, 0, "drop", 10), 10, r"drop = 10 at block 3 is impossible with 10 tokens: allowed is 0..9"),
        (Step(3, 0, "tokens", 11), 10, r"tokens = 11 at block 3 is impossible with 10 tokens: allowed is 1..10"),
        (Step(3, 0, "drop", Fraction(21, 2)), 10, r"drop = 10.5 at block 3 is impossible with 10 tokens"),
        (Step(3, 0, "drop", Fraction(20, 2)), 10, r"drop = 10 at block 3 is impossible with 10 tokens"),
        (Step(3, 0, "keep", 0.5), 0, r"keep = 0.5 at block 3 is impossible with 0 tokens: allowed is \(0, 1\]"),
    ],
)
def test_impossible_steps_are_refused_with_the_numbers(step: Step, n: int, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        step.left(n)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"give exactly one of drop, keep, tokens; given: none"),
        ({"drop": 1, "keep": 0.5}, r"given: \['drop', 'keep'\]"),
        ({"drop": -1}, r"drop = -1 is not a whole number of at least 0"),
        ({"drop": 1.5}, r"drop = 1.5 is not a whole number of at least 0"),
        ({"drop": True}, r"drop = True is not a whole number of at least 0"),
        ({"drop": (1, -2)}, r"drop = -2 is not a whole number of at least 0"),
        ({"tokens": 0}, r"tokens = 0 is not a whole number of at least 1"),
        ({"keep": 0}, r"keep = 0 is not in \(0, 1\]"),
        ({"keep": 1.01}, r"keep = 1.01 is not in \(0, 1\]"),
        ({"keep": float("nan")}, r"keep = nan is not in \(0, 1\]"),
        ({"keep": "half"}, r"keep = half is not in \(0, 1\]"),
        ({"keep": (0.5, True)}, r"keep = True is not in \(0, 1\]"),
        ({"drop": 1, "shape": "linear"}, r"shape = 'linear' is not constant, decreasing, increasing or an inflection"),
        ({"drop": 1, "shape": 1.5}, r"shape = 1.5 is not an inflection in \[-1, 1\]"),
        ({"drop": 1, "shape": float("nan")}, r"shape = nan is not an inflection in \[-1, 1\]"),
        ({"keep": 0.5, "shape": "decreasing"}, r"shape = 'decreasing' needs a single drop, not keep = 0.5"),
        ({"drop": (1, 2), "shape": 0.5}, r"shape = 0.5 needs a single drop, not drop = \(1, 2\)"),
        ({"drop": 0.25, "shape": "decreasing"}, r"shape = 'decreasing' needs a single drop, not drop = 0.25"),
        ({"drop": (3, 1.0)}, r"drop = 1.0 is not a whole number of at least 0, or a share in \(0, 1\)"),
        ({"drop": -0.5}, r"drop = -0.5 is not a whole number of at least 0, or a share in \(0, 1\)"),
        ({"at": "halves", "drop": 1}, r"at = 'halves' is not one of all, thirds, quarters, third, early or a tuple of"),
        ({"at": 3, "drop": 1}, r"at = 3 is not one of all, thirds, quarters, third, early or a tuple of blocks"),
    ],
)
def test_a_wrong_schedule_is_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        Schedule(**settings)


@pytest.mark.parametrize(
    ("schedule", "depth", "message"),
    [
        (Schedule("thirds", drop=1), 2, r"at = 'thirds' needs more than 2 blocks: steps would coincide at \(0, 0, 1\)"),
        (Schedule("quarters", drop=1), 2, r"needs more than 2 blocks"),
        (Schedule((0, 12), drop=1), 12, r"at = \(0, 12\): block 12 is not in 0..11"),
        (Schedule((-1,), drop=1), 12, r"block -1 is not in 0..11"),
        (Schedule((1.0,), drop=1), 12, r"block 1.0 is not in 0..11"),  # type: ignore[arg-type]
        (Schedule((True,), drop=1), 12, r"block True is not in 0..11"),
        (Schedule((3, 3), drop=1), 12, r"at = \(3, 3\): blocks must rise and not repeat"),
        (Schedule((4, 3), drop=1), 12, r"blocks must rise and not repeat"),
        (Schedule((1, 2), drop=(1, 2, 3)), 12, r"drop has 3 entries for 2 steps at blocks \(1, 2\)"),
        (Schedule((1, 2), tokens=(4,)), 12, r"tokens has 1 entries for 2 steps: give one per step"),
    ],
)
def test_a_schedule_that_does_not_fit_the_depth_is_refused(schedule: Schedule, depth: int, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        schedule.steps(depth)


def test_schedules_and_steps_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError, match="drop"):
        Schedule(drop=1).drop = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="amount"):
        Step(0, 0, "drop", 1).amount = 2  # type: ignore[misc]


STAGES = StageSites(entries=(1, 3), reduced=(1, 2, 3, 4, 5), patches=(960, 240, 240, 60, 60, 60))
"""A hierarchical backbone: two blocks of which the second ends its stage, then two, then two."""


def test_named_places_on_stages() -> None:
    assert Schedule("all", drop=1).blocks(6, STAGES) == (1, 2, 3, 4, 5)
    assert Schedule("third", drop=1).blocks(6, STAGES) == (1,)
    for name in ("thirds", "quarters", "early"):
        assert Schedule(name, drop=1).blocks(6, STAGES) == (1, 3)
    assert Schedule((0, 4), drop=1).blocks(6, STAGES) == (0, 4)


def test_a_single_number_to_drop_scales_with_the_grid_and_other_amounts_do_not() -> None:
    def amounts(schedule: Schedule) -> list[Any]:
        return [step.amount for step in schedule.steps(6, STAGES)]

    assert amounts(Schedule("thirds", drop=40)) == [40, 10]
    assert amounts(Schedule("thirds", drop=6)) == [6, Fraction(3, 2)]
    assert amounts(Schedule("all", drop=40)) == [40, 40, 10, 10, 10]
    assert amounts(Schedule("thirds", drop=40, shape="decreasing")) == [40, 5]
    assert amounts(Schedule((0, 1), drop=40)) == [40, 10]
    assert amounts(Schedule("thirds", drop=(40, 20))) == [40, 20]
    assert amounts(Schedule("thirds", drop=0.25)) == [0.25, 0.25]
    assert amounts(Schedule("thirds", keep=0.5)) == [0.5, 0.5]
    assert amounts(Schedule("thirds", tokens=(30, 20))) == [30, 20]
