"""Axes to points: every combination once, in a fixed order."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.run.grid import MAX_POINTS, expand, matches, reducer_text, setting, size
from tokred.run.sweep_spec import BaseSpec, Exclude, Settled
from tokred.spec_text import RegistryError


def settled(*axes: dict[str, list[Any]], seeds: tuple[int, ...] = (0,), **more: Any) -> Settled:
    return Settled("", BaseSpec(), axes, more.get("excludes", ()), seeds)


def test_the_last_axis_moves_fastest_and_the_seed_faster_still() -> None:
    points = expand(settled({"reducer.order": ["F", "B"]}, {"budget": [0.5, 0.7]}, seeds=(3, 4)))
    assert [tuple(point.values.values()) for point in points] == [
        (order, budget, seed) for order in "FB" for budget in (0.5, 0.7) for seed in (3, 4)
    ]
    assert list(points[0].values) == ["reducer.order", "budget", "seed"]


def test_keys_of_one_axis_move_together() -> None:
    points = expand(settled({"reducer": ["sta", "tome"], "reducer.r": [8, 30]}))
    assert [(p.values["reducer"], p.values["reducer.r"]) for p in points] == [("sta", 8), ("tome", 30)]


def test_without_axes_there_is_one_point_per_seed() -> None:
    assert [point.values for point in expand(settled(seeds=(0, 1)))] == [{"seed": 0}, {"seed": 1}]


def test_points_are_left_out_with_the_reason() -> None:
    left_out = Exclude(when={"reducer.order": "B", "budget": 0.7}, reason="cannot be met")
    points = expand(settled({"reducer.order": ["F", "B"]}, {"budget": [0.5, 0.7]}, excludes=(left_out,)))
    assert [point.excluded for point in points] == [None, None, None, "cannot be met"]


def test_a_huge_grid_is_refused_before_it_is_made() -> None:
    huge = settled(*({f"reducer.k{i}": list(range(100))} for i in range(6)))
    assert size(huge) == 100**6
    with pytest.raises(ValueError, match=f"{100**6} points; allowed are {MAX_POINTS}"):
        expand(huge)


def test_a_reducer_may_be_written_as_a_mapping() -> None:
    assert reducer_text({"method": "evit", "keep": [0.7, 0.5], "fuse": True}) == "evit:keep=[0.7,0.5],fuse=true"
    assert reducer_text("sta:r=8") == "sta:r=8"
    with pytest.raises(RegistryError, match="no method"):
        reducer_text({"r": 8})
    points = expand(settled({"reducer": [{"method": "sta", "r": 8}]}))
    assert points[0].values["reducer"] == "sta:r=8"
    assert matches(points[0].values, {"reducer": {"method": "sta", "r": 8}})


def test_knobs_reach_into_the_reducer_of_the_point() -> None:
    base = BaseSpec(reducer="sta:r=8", clips=5)
    fields, reducer = setting(base, {"reducer.order": "FFF", "reducer.r": 4, "clips": 7, "seed": 3})
    assert reducer == "sta:r=4,order=FFF"
    assert fields["clips"] == 7
    assert "seed" not in fields
    assert setting(base, {"reducer": "methods.sta:STA", "reducer.r": 2})[1] == "methods.sta:STA:r=2"


def test_knobs_of_a_composition_belong_to_nobody() -> None:
    with pytest.raises(RegistryError, match="composition"):
        setting(BaseSpec(reducer="sta:r=8+tome:r=2"), {"reducer.r": 4})


def test_a_point_matches_by_all_the_values() -> None:
    values = {"reducer.r": 8, "budget": 0.5, "seed": 0}
    assert matches(values, {})
    assert matches(values, {"budget": 0.5, "reducer.r": 8})
    assert not matches(values, {"budget": 0.5, "reducer.r": 9})
    assert not matches(values, {"clips": None})
