"""Each point of an ablation against the first one: what is paired, pooled, and left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tokred.data.source import LabelSet
from tokred.measure.statistics import mcnemar, paired_difference
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.evaluate import Predictions
from tokred.run.sweep_differences import differences_of
from tokred.run.sweep_plan import Group, PlannedCell, Point, SweepPlan

SET = LabelSet("motion", ("a", "b"))
N = 20
ORDERS: list[dict[str, list[Any]]] = [{"reducer.order": ["FBF", "BBB"]}]
BUDGETS: list[dict[str, list[Any]]] = [*ORDERS, {"budget": [0.5, 0.35]}]


def planned(order: str, seed: int = 0, budget: float = 0.5, measure: str = "predict", data: str = "") -> PlannedCell:
    clips = data or f"d{seed}"
    group = Group("b", None, None, ClipSettings(), "w", "", clips, "clips", N, "clip", (SET,), (SET,), 1.0, 8, 10)
    point = Point({"reducer.order": order, "budget": budget, "seed": seed})
    return PlannedCell(point, Cell("b", order, measure=measure), f"{order}-{budget}-{seed}-{measure}", group, None)


def answers(right: int) -> Predictions:
    logits = np.tile(np.array([[0.0, 2.0]], np.float32), (N, 1))
    logits[:right] = [2.0, 0.0]
    return Predictions(logits, np.zeros((N, 3), np.float32), np.arange(N), {"motion": np.zeros(N, np.int64)})


def found(cells: list[PlannedCell], right: dict[str, int], axes=BUDGETS, arrays=None) -> list[dict[str, Any]]:
    known = {id_: answers(count) for id_, count in right.items()}
    plan = SweepPlan("", tuple(cells), ())
    return differences_of(plan, lambda i: known.get(i or ""), lambda i: (arrays or {}).get(i), axes)


def test_every_point_is_held_against_the_first_one_of_its_budget() -> None:
    cells = [planned(order, budget=budget) for order in ("FBF", "BBB") for budget in (0.5, 0.35)]
    right = {"FBF-0.5-0-predict": 18, "FBF-0.35-0-predict": 12, "BBB-0.5-0-predict": 13, "BBB-0.35-0-predict": 14}
    entries = found(cells, right)
    assert [(e["from"], e["to"], e["ours"]) for e in entries] == [
        ({"reducer.order": "FBF", "budget": b}, {"reducer.order": "BBB", "budget": b}, pytest.approx(gap))
        for b, gap in ((0.5, -0.25), (0.35, 0.1))
    ]
    gap = paired_difference(0, 5, N)
    first = entries[0]
    assert (first["label"], first["at"], first["n"], first["p"]) == ("motion", {}, N, mcnemar(0, 5))
    assert (first["low"], first["high"]) == (gap.low, gap.high)


def test_seeds_are_pooled() -> None:
    cells = [planned(order, seed) for seed in (0, 1) for order in ("FBF", "BBB")]
    right = {"FBF-0.5-0-predict": 18, "BBB-0.5-0-predict": 13, "FBF-0.5-1-predict": 10, "BBB-0.5-1-predict": 10}
    (entry,) = found(cells, right)
    assert (entry["ours"], entry["n"]) == (pytest.approx(-0.125), 2 * N)
    assert "seed" not in {**entry["from"], **entry["to"]}


def test_other_clips_are_never_paired() -> None:
    cells = [planned("FBF"), planned("BBB", data="others")]
    right = {"FBF-0.5-0-predict": 18, "BBB-0.5-0-predict": 13}
    assert found(cells, right) == []


def test_measured_values_are_paired_clip_by_clip() -> None:
    cells = [planned("FBF", measure="gradnorm"), planned("BBB", measure="gradnorm")]
    arrays = {
        "FBF-0.5-0-gradnorm": {"items": np.arange(N), "retained": np.linspace(0.5, 0.6, N)},
        "BBB-0.5-0-gradnorm": {"items": np.arange(N), "retained": np.linspace(0.5, 0.6, N) - 0.25},
    }
    (entry,) = found(cells, {}, arrays=arrays)
    assert (entry["label"], entry["ours"]) == ("retained", pytest.approx(-0.25))
    assert entry["p"] < 0.05


@pytest.mark.parametrize("axes", [[*ORDERS, {"reducer.r": [1, 2]}], [{"budget": [0.5, 0.35]}], []])
def test_without_exactly_one_setting_there_is_no_first_point(axes) -> None:
    cells = [planned("FBF"), planned("BBB")]
    assert found(cells, {"FBF-0.5-0-predict": 18, "BBB-0.5-0-predict": 13}, axes) == []


def test_what_is_not_computed_is_left_out() -> None:
    assert found([planned("FBF"), planned("BBB")], {"FBF-0.5-0-predict": 18}) == []
