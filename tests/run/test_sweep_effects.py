"""Printed effects beside ours: which points are paired, and what the signs say."""

from __future__ import annotations

import numpy as np
import pytest

from tokred.data.source import LabelSet
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.evaluate import Predictions
from tokred.run.sweep_effects import effects_of, printed_for, verdict, verdict_counts
from tokred.run.sweep_plan import Group, PlannedCell, Point, SweepPlan
from tokred.run.sweep_spec import SweepSpec

SET = LabelSet("motion", ("a", "b"))
ORDERS = (("FBF", 0.0), ("BBB", 1.0))
PAPER = {"rows": [{"at": {"order": "FBF"}, "value": 85.0, "gflops": 308.0}, {"at": {"order": "BBB"}, "value": 84.0}]}


def group(data: str = "d") -> Group:
    return Group("b", None, None, ClipSettings(), "w", "", data, "synthetic", 40, "clip", (SET,), (SET,), 1.0, 8, 10)


def planned(order: str, seed: int = 0, measure: str = "predict", data: str = "d") -> PlannedCell:
    id_ = f"{order}{seed}{measure}"
    return PlannedCell(
        Point({"order": order, "seed": seed}), Cell("b", "sta", measure=measure), id_, group(data), "none"
    )


def predictions(right: int, n: int = 40) -> Predictions:
    logits = np.tile(np.array([[0.0, 2.0]], np.float32), (n, 1))
    logits[:right] = [2.0, 0.0]
    return Predictions(logits, np.zeros((n, 3), np.float32), np.arange(n), {"motion": np.zeros(n, np.int64)})


def spec(**paper) -> SweepSpec:
    return SweepSpec.model_validate({"name": "x", "paper": {**PAPER, **paper}})


def run(cells: dict[str, Predictions], other: str = "d", **paper) -> list[dict]:
    """Two orders with two seeds; ``other``: the clips of the second seed."""
    seconds = planned("FBF", 1, data=other), planned("BBB", 1, data=other)
    plan = SweepPlan("nano", (planned("FBF"), planned("BBB"), *seconds), ())
    return effects_of(spec(**paper), plan, lambda i: cells.get(i or ""), lambda i: None)


def test_printed_rows_are_compared_with_the_first_and_seeds_are_pooled() -> None:
    found = run(
        {
            "FBF0predict": predictions(38),
            "BBB0predict": predictions(20),
            "FBF1predict": predictions(36),
            "BBB1predict": predictions(22),
        },
        other="generated with another seed",
    )
    assert len(found) == 1
    effect = found[0]
    assert effect["from"] == {"order": "FBF"}
    assert effect["paper"] == -1.0
    assert effect["n"] == 80
    assert effect["ours"] == pytest.approx(42 / 80 - 74 / 80)
    assert effect["verdict"] == "same sign"


def test_the_other_sign_contradicts_only_where_it_is_significant() -> None:
    clear = run({"FBF0predict": predictions(10), "BBB0predict": predictions(38)})
    assert clear[0]["verdict"] == "contradicts"
    faint = run({"FBF0predict": predictions(30), "BBB0predict": predictions(31)})
    assert faint[0]["verdict"] == "not resolved"


def test_cells_that_are_missing_leave_the_effect_open() -> None:
    found = run({"FBF0predict": predictions(10)})
    assert found[0]["verdict"] == "not computed"
    assert found[0]["ours"] is None


def test_effects_can_be_named() -> None:
    found = run(
        {"FBF0predict": predictions(20), "BBB0predict": predictions(30)},
        effects=[{"from": {"order": "BBB"}, "to": {"order": "FBF"}, "note": "why"}],
    )
    assert (found[0]["paper"], found[0]["note"]) == (1.0, "why")
    assert found[0]["ours"] == pytest.approx(-0.25)


def test_what_an_effect_leaves_open_is_not_pooled() -> None:
    """The same clips at two budgets are no second sample."""
    cells = [
        PlannedCell(
            Point({"order": order, "budget": budget, "seed": 0}), Cell("b", "sta"), f"{order}{budget}", group(), "none"
        )
        for order in ("FBF", "BBB")
        for budget in (0.5, 0.3)
    ]
    answers = {"FBF0.5": 38, "BBB0.5": 30, "FBF0.3": 30, "BBB0.3": 30}
    found = effects_of(
        spec(), SweepPlan("nano", tuple(cells), ()), lambda i: predictions(answers[i or ""]), lambda i: None
    )
    assert [(e["at"], e["n"]) for e in found] == [({"budget": 0.5}, 40), ({"budget": 0.3}, 40)]
    assert [e["ours"] for e in found] == [pytest.approx(-0.2), 0.0]


def test_a_label_speaks_for_the_keys_that_move_with_it() -> None:
    axes = [{"label": ["r=0", "r=64"], "reducer.r": [0, 64]}]
    paper = {"rows": [{"at": {"label": "r=0"}, "value": 81.0}, {"at": {"label": "r=64"}, "value": 80.0}]}
    cells = [
        PlannedCell(Point({"label": name, "reducer.r": r, "seed": 0}), Cell("b", "sta"), name, group(), "none")
        for name, r in (("r=0", 0), ("r=64", 21))
    ]
    answers = {"r=0": 38, "r=64": 20}
    found = effects_of(
        spec(**paper),
        SweepPlan("nano", tuple(cells), ()),
        lambda i: predictions(answers[i or ""]),
        lambda i: None,
        axes,
    )
    assert [e["verdict"] for e in found] == ["same sign"]


def test_other_clips_are_never_paired() -> None:
    plan = SweepPlan("nano", (planned("FBF"), planned("BBB", data="other")), ())
    cells = {"FBF0predict": predictions(1), "BBB0predict": predictions(2)}
    assert effects_of(spec(), plan, lambda i: cells.get(i or ""), lambda i: None)[0]["verdict"] == "not computed"


def test_other_measures_are_compared_clip_by_clip() -> None:
    plan = SweepPlan("nano", (planned("FBF", measure="trajectory"), planned("BBB", measure="trajectory")), ())
    base = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    arrays = {
        "FBF0trajectory": {"trajectory": base, "items": np.arange(40)},
        "BBB0trajectory": {"trajectory": base - 0.5, "items": np.arange(40)},
    }
    found = effects_of(spec(), plan, lambda i: None, lambda i: arrays.get(i or ""))
    assert [e["label"] for e in found] == ["trajectory"]
    assert found[0]["ours"] == pytest.approx(-0.5, abs=1e-6)
    assert found[0]["verdict"] == "same sign"
    assert found[0]["p"] < 1e-6


def test_printed_numbers_of_one_value_are_held_against_that_value_alone() -> None:
    plan = SweepPlan("nano", (planned("FBF", measure="other"), planned("BBB", measure="other")), ())
    base = np.zeros((40, 2), np.float32) + np.arange(40, dtype=np.float32)[:, None]
    arrays = {
        "FBF0other": {"kept": base[:, 0], "trajectory": base, "items": np.arange(40)},
        "BBB0other": {"kept": base[:, 0] + 1, "trajectory": base - 1, "items": np.arange(40)},
    }
    found = effects_of(spec(), plan, lambda i: None, lambda i: arrays.get(i or ""), (), "trajectory")
    assert [e["label"] for e in found] == ["trajectory"]
    assert len(effects_of(spec(), plan, lambda i: None, lambda i: arrays.get(i or ""))) == 2


def test_printed_numbers_stand_at_their_points() -> None:
    assert printed_for(spec(), {"order": "FBF", "seed": 3}) == {"value": 85.0, "gflops": 308.0, "note": ""}
    assert printed_for(spec(), {"order": "FFF"}) is None
    assert printed_for(SweepSpec(name="x"), {"order": "FBF"}) is None


@pytest.mark.parametrize(
    ("paper", "ours", "p", "expected"),
    [
        (1.0, 0.2, 0.04, "same sign"),
        (1.0, 0.2, 0.4, "same sign, p >= 0.05"),
        (0.0, 0.2, 0.4, "printed equal"),
        (0.0, -0.112, 0.0001, "printed equal, ours differs"),
        (0.0, 0.0, 1.0, "printed equal"),
        (0.0, 0.2, None, "printed equal"),
        (None, 0.2, 0.4, "not printed"),
        (1.0, 0.0, 1.0, "not resolved"),
        (-1.0, 0.2, 0.01, "contradicts"),
        (1.0, None, None, "not computed"),
    ],
)
def test_verdicts(paper, ours, p, expected) -> None:
    assert verdict(paper, ours, p) == expected


def test_verdicts_are_counted_in_one_order() -> None:
    reached = ["not resolved", "same sign", "printed equal, ours differs", "same sign"]
    counts = verdict_counts([{"verdict": one} for one in reached])
    assert list(counts.items()) == [("same sign", 2), ("printed equal, ours differs", 1), ("not resolved", 1)]
    assert verdict_counts([]) == {}


def test_a_seed_on_the_same_clips_is_no_second_sample() -> None:
    cells = {name: predictions(n) for name, n in (("FBF0predict", 38), ("BBB0predict", 20))}
    cells |= {name.replace("0", "1"): found for name, found in cells.items()}
    assert run(cells)[0]["n"] == 40
    base = np.random.default_rng(0).normal(size=40)
    arrays = {f"{order}{seed}other": {"kept": base + shift} for seed in (0, 1) for order, shift in ORDERS}
    plan = SweepPlan("nano", tuple(planned(order, seed, "other") for seed in (0, 1) for order, _ in ORDERS), ())
    assert effects_of(spec(), plan, lambda i: None, lambda i: arrays.get(i or ""))[0]["n"] == 40


def test_measures_of_other_clips_are_never_paired() -> None:
    plan = SweepPlan("nano", (planned("FBF", 0, "other"), planned("BBB", 0, "other", "elsewhere")), ())
    arrays = {f"{order}0other": {"kept": np.full(40, shift)} for order, shift in ORDERS}
    found = effects_of(spec(), plan, lambda i: None, lambda i: arrays.get(i or ""))
    assert found[0]["verdict"] == "not computed"
