"""What is planned: every setting checked on its host, ids and costs known, nothing computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tokred.run.spec_file import SpecError
from tokred.run.sweep_file import load_sweep, parse_sweep
from tokred.run.sweep_plan import SweepPlan
from tokred.run.sweep_planner import plan_sweep

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SWEEPS = [path for path in sorted(EXPERIMENTS.glob("*.yaml")) if "stages" not in yaml.safe_load(path.read_text())]

BASE = {"reducer": "sta:r=8", "clips": 4}


def plan(profile: str | None = None, **content: Any) -> SweepPlan:
    return plan_sweep(parse_sweep({"name": "x", "base": BASE, **content}), profile)


def told(**content: Any) -> tuple[str, ...]:
    with pytest.raises(SpecError, match="problem") as caught:
        plan(**content)
    return caught.value.problems


def test_cells_stand_in_the_order_of_the_grid_with_one_shared_unreduced_model() -> None:
    found = plan(axes=[{"reducer.order": ["FBF", "BFB"]}, {"reducer.r": [4, 8]}])
    assert [p.cell.reducer for p in found.cells if p.cell] == [
        "sta:r=4", "sta:r=8", "sta:r=4,order=BFB", "sta:r=8,order=BFB",
    ]  # fmt: skip
    assert len({p.id for p in found.cells}) == 4
    assert {p.baseline for p in found.cells} == {p.id for p in found.baselines}
    (unreduced,) = found.baselines
    assert unreduced.cell is not None
    assert (unreduced.cell.reducer, unreduced.share) == ("none", 1.0)
    assert list(found.wanted) == [unreduced.id, *(p.id for p in found.cells)]


def test_a_point_that_is_the_unreduced_model_is_not_computed_twice() -> None:
    found = plan(axes=[{"reducer": ["none", "sta:r=8"]}])
    assert found.cells[0].id == found.baselines[0].id
    assert len(found.wanted) == 2


def test_names_do_not_change_from_run_to_run_and_do_with_settings() -> None:
    def ids(**changes: Any) -> list[str | None]:
        return [p.id for p in plan(base={**BASE, **changes}).cells]

    assert ids() == ids()
    assert len({*ids(), *ids(clips=5), *ids(dtype="float64"), *ids(batch_size=2), *ids(reducer="sta:r=7")}) == 5


def test_budgets_are_solved_and_the_cost_is_near() -> None:
    found = plan(base={"reducer": "sta", "clips": 4}, axes=[{"budget": [0.75, 0.5]}])
    for planned, share in zip(found.cells, (0.75, 0.5), strict=True):
        assert planned.budget == share
        assert planned.share == pytest.approx(share, abs=0.02)
        assert planned.report is not None
        assert planned.cell is not None
        assert planned.cell.reducer.startswith("sta:r=")


def test_every_setting_that_cannot_be_run_is_told_with_its_axis() -> None:
    problems = told(axes=[{"reducer.r": [8, 400]}, {"reducer.order": ["FBF", "XYZ"]}, {"reducer.seeed": [1]}])
    assert [line.partition(": ")[0] for line in problems] == [
        "axes[0].reducer.r", "axes[1].reducer.order", "axes[2].reducer.seeed",
    ]  # fmt: skip
    assert problems[0].startswith("axes[0].reducer.r: 400: r = 400 ")
    assert "below 64" in problems[0]
    assert "did you mean seed?" in problems[2]


def test_a_wrong_axis_of_a_profile_is_named_there() -> None:
    nano = {"axes": [{"reducer.r": [8, 400]}]}
    assert told(axes=[{"reducer.r": [1, 2]}], profiles={"nano": nano})[0].startswith("profiles.nano.axes[0].reducer.r")


def test_an_unknown_method_gets_close_matches() -> None:
    (problem,) = told(axes=[{"reducer": ["stab:r=8", "sta:r=8"]}])
    assert problem.startswith("axes[0].reducer: stab:r=8: ")
    assert "did you mean sta" in problem


def test_a_budget_that_cannot_be_met_is_told() -> None:
    (problem,) = told(base={"reducer": "sta", "clips": 4}, axes=[{"budget": [0.5, 0.01]}])
    assert problem.startswith("axes[0].budget: 0.01: ")


def test_what_is_left_out_is_not_checked() -> None:
    found = plan(
        axes=[{"reducer.r": [8, 400]}], excludes=[{"when": {"reducer.r": 400}, "reason": "more than there are"}]
    )
    assert [p.point.excluded for p in found.cells] == [None, "more than there are"]
    assert found.cells[1].id is None


def test_missing_weights_and_data_are_told() -> None:
    assert "no-file.pth" in told(base={**BASE, "checkpoint": "no-file.pth"})[0]
    assert told(axes=[{"data": ["synthetic", "no-folder"]}])[0].startswith("axes[0].data: no-folder: ")


def test_untrained_parameters_are_refused_unless_they_are_meant() -> None:
    base = {**BASE, "reducer": "dynamicvit:keep=0.7,weights=none"}
    assert "base.allow_untrained: true" in told(base=base)[0]
    (planned,) = plan(base={**base, "allow_untrained": True}).cells
    assert (planned.learned, planned.trained) == (True, False)


def test_the_seed_is_that_of_the_clips_and_of_a_method_that_has_one() -> None:
    found = plan(base={"clips": 4}, axes=[{"reducer": ["sta:r=8,first=random", "tome:r=8"]}], seeds=[0, 3])
    cells = [p.cell for p in found.cells if p.cell]
    assert [cell.clips.seed for cell in cells] == [0, 3, 0, 3]
    assert "seed=3" in cells[1].reducer
    assert "seed" not in cells[0].reducer + cells[2].reducer + cells[3].reducer
    assert len(found.baselines) == 2


def test_every_measure_is_a_cell_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokred.run import measures
    from tokred.run.evaluate import answers

    monkeypatch.setitem(measures.MEASURES, "again", answers)
    found = plan(base={**BASE, "measures": ["predict", "again"]})
    assert [p.cell.measure for p in found.cells if p.cell] == ["predict", "again"]
    assert found.cells[0].id != found.cells[1].id
    assert found.cells[1].baseline == found.baselines[0].id


FULL = {
    "base": {"backbone": "videomae_vit_large", "checkpoint": "nowhere.pth", "data": "nowhere", "reducer": "sta:r=64"}
}


def test_the_full_size_is_counted_without_weights_or_clips() -> None:
    found = plan(axes=[{"reducer.order": ["FBF", "BFB"]}], profiles={"nano": {}, "full": FULL})
    costs = [p.full.gmac for p in found.cells if p.full]
    assert costs == [pytest.approx(308.74, abs=0.01)] * 2
    unreduced = found.baselines[0].full
    assert unreduced is not None
    assert unreduced.gmac == pytest.approx(597.22, abs=0.01)


def test_a_point_knows_its_values_at_full_size() -> None:
    full = {**FULL, "axes": [{"reducer.r": [32, 64]}]}
    found = plan(axes=[{"reducer.r": [4, 8]}], seeds=[0, 1], profiles={"nano": {}, "full": full})
    assert [p.full.values["reducer.r"] for p in found.cells if p.full] == [32, 32, 64, 64]
    assert [round(p.full.gmac or 0) for p in found.cells if p.full] == [447, 447, 309, 309]


def test_another_grid_at_full_size_is_noted() -> None:
    full = {**FULL, "axes": [{"reducer.r": [16, 32, 64]}]}
    found = plan(axes=[{"reducer.r": [4, 8]}], profiles={"nano": {}, "full": full})
    assert found.cells[0].full is None
    assert "other numbers of values" in found.notes[0]


def test_what_full_size_refuses_is_told_there() -> None:
    full = {**FULL, "axes": [{"reducer.r": [400]}]}
    (planned,) = plan(axes=[{"reducer.r": [4]}], profiles={"nano": {}, "full": full}).cells
    assert planned.full is not None
    assert planned.full.gmac is None
    assert "400" in (planned.full.reason or "")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_of_the_checkout_can_be_run_and_counted_at_full_size(path: Path) -> None:
    found = plan_sweep(load_sweep(path))
    costs = [planned.full for planned in found.cells if planned.cell is not None]
    assert costs
    assert [cost.reason if cost else "no full size" for cost in costs if cost is None or cost.gmac is None] == []
