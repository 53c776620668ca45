"""Points over their seeds: all clips in one number, and the spread between seeds beside it."""

from __future__ import annotations

import numpy as np
import pytest

from tokred.data.source import LabelSet
from tokred.measure.statistics import mcnemar, paired_difference, wilson
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.evaluate import Predictions
from tokred.run.sweep_plan import Group, PlannedCell, Point, SweepPlan
from tokred.run.sweep_results import means
from tokred.run.sweep_seeds import over_seeds

SET = LabelSet("motion", ("a", "b"))
N = 20


def planned(name: str, seed: int, measure: str = "predict", data: str | None = None) -> PlannedCell:
    clips = f"d{seed}" if data is None else data
    group = Group("b", None, None, ClipSettings(), "w", "", clips, "clips", N, "clip", (SET,), (SET,), 1.0, 8, 10)
    point = Point({"reducer": name, "seed": seed})
    return PlannedCell(
        point, Cell("b", name, measure=measure), f"{name}-{seed}-{measure}", group, f"none-{seed}-predict"
    )


def answers(right: int) -> Predictions:
    logits = np.tile(np.array([[0.0, 2.0]], np.float32), (N, 1))
    logits[:right] = [2.0, 0.0]
    return Predictions(logits, np.zeros((N, 3), np.float32), np.arange(N), {"motion": np.zeros(N, np.int64)})


RIGHT = {"none-0-predict": 18, "none-1-predict": 16, "sta-0-predict": 15, "sta-1-predict": 11}


def found(*cells: PlannedCell, **arrays: dict[str, np.ndarray]) -> list[dict]:
    known = {id_: answers(right) for id_, right in RIGHT.items()}
    every = {**{id_: given.arrays for id_, given in known.items()}, **arrays}
    return over_seeds(
        SweepPlan("", cells, ()), lambda i: known.get(i or ""), lambda i: every.get(i or ""), means, [["reducer"]]
    )


def test_clips_of_all_seeds_are_pooled_and_the_spread_is_beside() -> None:
    (entry,) = found(planned("sta", 0), planned("sta", 1))
    assert (entry["label"], entry["point"], entry["seeds"]) == ("sta", {"reducer": "sta"}, [0, 1])
    numbers = entry["accuracy"]["motion"]
    top1, gap = wilson(26, 40), paired_difference(0, 8, 40)
    assert [numbers[k] for k in ("top1", "low", "high", "n")] == [top1.value, top1.low, top1.high, 40]
    assert [numbers[k] for k in ("diff", "diff_low", "diff_high")] == [gap.value, gap.low, gap.high]
    assert numbers["p"] == mcnemar(0, 8)
    assert numbers["seed_top1"] == [0.75, 0.55]
    assert numbers["seed_diff"] == pytest.approx([-0.15, -0.25])
    assert numbers["top1_sd"] == pytest.approx(np.std([0.75, 0.55], ddof=1))
    assert numbers["diff_sd"] == pytest.approx(np.std([0.15, 0.25], ddof=1))


def test_the_unreduced_model_is_not_compared_with_itself() -> None:
    (entry,) = found(planned("none", 0), planned("none", 1))
    assert entry["accuracy"]["motion"]["diff"] is None
    assert entry["accuracy"]["motion"]["diff_sd"] is None


def test_one_seed_has_no_spread() -> None:
    assert found(planned("sta", 0)) == []
    assert found(planned("sta", 0), planned("sta", 7)) == []  # not computed yet


def test_seeds_on_the_same_clips_are_averaged_clip_by_clip() -> None:
    (entry,) = found(planned("sta", 0, data="k400"), planned("sta", 1, data="k400"))
    numbers = entry["accuracy"]["motion"]
    assert (numbers["n"], numbers["top1"]) == (N, pytest.approx(0.65))
    assert numbers["diff"] == pytest.approx(-0.2)


def test_other_measures_are_pooled_too_and_curves_entry_by_entry() -> None:
    arrays = {
        f"sta-{seed}-other": {
            "kept": np.full(N, 0.2 + seed),
            "trajectory": np.full((N, 2), [1.0, 3.0 + 2 * seed]),
            "items": np.arange(N),
        }
        for seed in (0, 1)
    }
    (entry,) = found(planned("sta", 0, "other"), planned("sta", 1, "other"), **arrays)
    assert entry["accuracy"] == {}
    kept, curve = entry["values"]["kept"], entry["values"]["trajectory"]
    assert (kept["value"], kept["n"], kept["sd"]) == (pytest.approx(0.7), 2 * N, pytest.approx(np.sqrt(0.5)))
    assert (curve["value"], curve["n"]) == ([1.0, 4.0], [2 * N, 2 * N])
    assert curve["sd"] == pytest.approx([0.0, np.sqrt(2)])


def test_curves_of_other_lengths_are_not_pooled() -> None:
    arrays = {f"sta-{seed}-other": {"curve": np.ones((N, 2 + seed)), "kept": np.ones(N)} for seed in (0, 1)}
    (entry,) = found(planned("sta", 0, "other"), planned("sta", 1, "other"), **arrays)
    assert set(entry["values"]) == {"kept"}
