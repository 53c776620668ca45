"""STA: what is refused, noted and promised."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.backbones.geometry import Geometry
from tokred.methods import STA
from tokred.schedule import ScheduleError, Step
from tokred.settings import SettingError
from tokred.tokens import Grid


def geometry(t: int = 4, h: int = 4, w: int = 6, depth: int = 6, prefix: int = 0) -> Geometry:
    grid = Grid(t, h, w)
    return Geometry(
        depth=depth, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=grid, prefix=prefix, classes=7, kernel=(2, 4, 4)
    )


@pytest.mark.parametrize(("t", "left"), [(8, 8 * (24 - 4 - 2 - 1)), (5, 5 * (24 - 4 - 2 - 1)), (1, 24 - 4 - 2 - 1)])
def test_tokens_left_for_even_odd_and_single_frames(t: int, left: int) -> None:
    counts = (24 * t, t)
    reducer, where = STA(r=4), geometry(t)
    for step in reducer.schedule.steps(6):
        promise = reducer.promise(step, *counts, where)
        counts = (promise.left, promise.groups)  # type: ignore[assignment]
    assert counts[0] == left
    assert reducer.describe(where) == (["one frame: only the first-frame rule acts"] if t == 1 else [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"similarity": "keys"}, "similarity = 'keys' is not one of key, query, value, ffn"),
        ({"score": "sum"}, "score = 'sum' is not one of both, activation, accumulation"),
        ({"first": "none"}, "first = 'none' is not one of tome, random, grid"),
        ({"grouping": "window"}, "grouping = 'window' is not one of clip, frame"),
        ({"order": "FXB"}, r"order = 'FXB' is not a string of F \(forward\) and B \(backward\)"),
        ({"order": ""}, "order = '' is not a string of F"),
        ({"r": (4, 2), "schedule": "constant"}, "schedule = 'constant' needs a single r, not one per stage"),
        ({"r": 4, "schedule": "linear"}, "shape = 'linear' is not constant, decreasing, increasing"),
        ({"r": -1}, "drop = -1 is not a whole number of at least 0"),
    ],
)
def test_wrong_settings_are_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        STA(**settings)


def test_wrong_kinds_are_refused_when_it_is_made() -> None:
    with pytest.raises(SettingError, match="order = 3 is not a word"):
        STA(order=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reducer", "where", "message"),
    [
        (
            STA(r=24),
            geometry(),
            r"r = 24 per frame at block 0 drops 24 of 24 tokens per group of 1 frame\(s\): allowed is below 24",
        ),
        (
            STA(r=20, schedule="constant"),
            geometry(),
            r"at block 2 drops 40 of 8 tokens per group of 2 frame\(s\): allowed is below 4",
        ),
        (STA(r=(8, 8, 8), at=(0, 1, 2)), geometry(), r"at block 2 drops 16 of 16 tokens per group of 2"),
        (STA(r=2), geometry(depth=2), "at = 'thirds' needs more than 2 blocks"),
    ],
)
def test_impossible_drops_are_refused_with_the_numbers(reducer: STA, where: Geometry, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        reducer.check(where)


def test_corrections_are_noted() -> None:
    assert STA(r=4).check(geometry()) == []
    assert STA(r=3, at=(0, 1)).check(geometry(t=5)) == ["block 1: 1.5 tokens per group rounded down to 1"]
    assert STA(r=13, at=(0,)).check(geometry()) == [
        "block 0: r = 13 exceeds half of the first group's 24, odd places go too"
    ]


def test_strength_reaches_up_to_half_of_a_frame_or_what_the_stages_allow() -> None:
    assert STA().strength_range(geometry()).strongest == 12
    high = STA(schedule="increasing").strength_range(geometry()).strongest
    STA(r=int(high), schedule="increasing").check(geometry())
    with pytest.raises(ScheduleError, match="allowed is below"):
        STA(r=int(high) + 1, schedule="increasing").check(geometry())


@pytest.mark.parametrize("prefix", [0, 2])
@pytest.mark.parametrize(("t", "index", "groups"), [(4, 0, 4), (4, 1, 2), (1, 0, 1)])
def test_a_stage_costs_the_first_frames_similarities_and_two_products_for_each_later_one(
    t: int, index: int, groups: int, prefix: int
) -> None:
    g, each = 24 * t // groups, t // groups
    r, d = 5 * each, 8
    first = (g // 2) * (g // 2) * d
    all_sources = g * g * d if groups > 1 else 0
    later = sum(g * (g - r) * (d + 1) for _ in range(2, groups))
    where, step = geometry(t, prefix=prefix), Step(index, index, "drop", 5)
    assert STA(r=5).macs(prefix + groups * g, where, step) == first + all_sources + later
    assert STA(r=5, first="grid").macs(prefix + groups * g, where, step) == all_sources + later


def test_published_settings_have_the_published_counts() -> None:
    """ViT-L, 8 tubelets of 14 x 14: r = 64 leaves 8N - 8r, - 12r, - 14r tokens."""
    where = geometry(8, 14, 14, depth=24)
    counts: tuple[int, int | None] = (1568, 8)
    found = []
    for step in STA(r=64).schedule.steps(24):
        promise = STA(r=64).promise(step, *counts, where)
        counts = (promise.left, promise.groups)
        found.append((step.block, promise.left))
    assert found == [(0, 1568 - 8 * 64), (8, 1568 - 12 * 64), (16, 1568 - 14 * 64)]
