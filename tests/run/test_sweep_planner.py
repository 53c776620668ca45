"""What is planned: every setting checked on its host, ids and costs known, nothing computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tokred.run.spec_file import SpecError
from tokred.run.sweep_file import draft_sweep, load_sweep, parse_sweep
from tokred.run.sweep_plan import SweepPlan
from tokred.run.sweep_planner import plan_draft, plan_sweep

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
    assert problems[0] == "axes[0].reducer.r: 400 is not below 64 at block 0 (in 2 points)"
    assert problems[1].startswith("axes[1].reducer.order: 'XYZ' is not a string of F (forward) and B")
    assert "did you mean seed?" in problems[2]


def test_a_wrong_axis_of_a_profile_is_named_there() -> None:
    nano = {"axes": [{"reducer.r": [8, 400]}]}
    assert told(axes=[{"reducer.r": [1, 2]}], profiles={"nano": nano})[0].startswith("profiles.nano.axes[0].reducer.r")


def test_an_unknown_method_gets_close_matches() -> None:
    (problem,) = told(axes=[{"reducer": ["stab:r=8", "sta:r=8"]}])
    assert problem.startswith("axes[0].reducer[0]: unknown method 'stab'")
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
    assert told(base={**BASE, "checkpoint": "no.pth"}) == ("base.checkpoint: no such file: no.pth",)
    (problem,) = told(axes=[{"data": ["synthetic", "no-folder"]}])
    assert problem.startswith("axes[0].data: no such file or folder: no-folder (allowed: ")


def test_the_unreduced_model_is_to_blame_for_its_budget_and_not_the_budget() -> None:
    base = {"clips": 4, "checkpoint": "no.pth"}
    axes = [{"reducer": ["none", "sta", "tome"]}, {"budget": [0.5, 1.0]}, {"data": ["synthetic", "nope.txt"]}]
    problems = told(base=base, axes=axes)
    assert [line.partition(" (")[0] for line in problems] == [
        "axes[0].reducer: none has no strength to solve for",
        "base.checkpoint: no such file: no.pth",
        "axes[2].data: no such file or folder: nope.txt",
    ]
    assert problems[0].endswith("(in 4 points)")


def test_a_file_and_its_cells_are_told_in_one_go() -> None:
    content = {
        "name": "x",
        "base": {"clips": -3, "corrupt": "nose:0.5", "data": "nope.txt", "reducer": "sta:shedule=linear"},
        "axes": [{"reducer.order": ["FBF", "XYZ"]}, {"reducer.r": [8, 400]}, {"backbone": ["videomae_vit_nan"]}],
        "excludes": [{"when": {"reducer.ordr": "FBF"}, "reason": "x"}],
    }
    with pytest.raises(SpecError, match="problem") as caught:
        plan_draft(draft_sweep(content, "x"))
    assert [line.partition(": ")[0] for line in caught.value.problems] == [
        "base.clips", "base.corrupt", "base.reducer.shedule", "axes[2].backbone[0]", "excludes[0].when.reducer.ordr",
        "axes[0].reducer.order", "base.data",
    ]  # fmt: skip
    content["axes"].pop()
    with pytest.raises(SpecError, match="problem") as caught:
        plan_draft(draft_sweep(content, "x"))
    assert any(line.startswith("axes[1].reducer.r: 400 is not below 64") for line in caught.value.problems)


NEEDY = {
    "nano": {},
    "full": {
        "base": {"backbone": "videomae_vit_small", "checkpoint": "no.pth", "data": "no.txt", "clips": None},
        "needs": "weights and clips from there",
    },
}


def test_a_real_run_without_its_files_says_what_it_needs() -> None:
    with pytest.raises(SpecError, match="problem") as caught:
        plan("full", profiles=NEEDY)
    assert [line.partition(" (")[0] for line in caught.value.problems] == [
        "profiles.full.base.checkpoint: no such file: no.pth",
        "profiles.full.base.data: no such file or folder: no.txt",
        "profiles.full.needs: weights and clips from there",
    ]


def test_a_dry_run_does_without_the_files_that_its_profile_needs() -> None:
    spec = parse_sweep({"name": "x", "base": BASE, "axes": [{"reducer.order": ["FBF", "BFB"]}], "profiles": NEEDY})
    found = plan_sweep(spec, "full", dry=True)
    assert len(found.wanted) == 3
    for planned in found.wanted.values():
        assert planned.group is not None
        assert planned.group.absent
        assert planned.report is not None
        assert planned.full is not None
        assert planned.report.gmac == pytest.approx(planned.full.gmac)
    assert [note.partition(" (")[0] for note in found.notes] == [
        "not there: profiles.full.base.checkpoint: no such file: no.pth",
        "not there: profiles.full.base.data: no such file or folder: no.txt",
    ]


def test_a_dry_run_of_what_needs_nothing_refuses_missing_files_and_all_else_everywhere() -> None:
    for content in (
        {"base": {**BASE, "data": "no.txt"}},
        {"base": BASE, "axes": [{"reducer.r": [400]}], "profiles": NEEDY},
    ):
        with pytest.raises(SpecError, match="problem"):
            plan_sweep(parse_sweep({"name": "x", **content}), "full" if "profiles" in content else None, dry=True)


def test_a_point_without_its_file_does_not_change_the_others() -> None:
    profiles = {"nano": {"needs": "a list"}}
    spec = parse_sweep({"name": "x", "base": BASE, "axes": [{"data": ["synthetic", "no.txt"]}], "profiles": profiles})
    found = plan_sweep(spec, dry=True)
    alone = plan_sweep(parse_sweep({"name": "x", "base": BASE}))
    assert found.cells[0].id == alone.cells[0].id
    assert [p.group.absent for p in found.cells if p.group] == [False, True]
    assert found.cells[1].share == found.cells[0].share


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
