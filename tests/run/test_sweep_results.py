"""What a sweep found: paired with the unreduced model, summed up with intervals, plain JSON at any moment."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tokred.run.store import CellStore
from tokred.run.sweep import open_sweep
from tokred.run.sweep_results import assemble_sweep, means
from tokred.run.work import Done, Task, work

FILE = """
name: tiny
base: {clips: 6, reducer: sta, measures: [predict, trajectory]}
axes:
  - {reducer.order: [FBF, BFB], reducer.r: [22, 22]}
excludes:
  - {when: {reducer.order: BFB}, reason: for the test}
paper:
  rows:
    - {at: {reducer.order: FBF}, value: 84.96, gflops: 308}
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "tiny.yaml"
    path.write_text(FILE)
    return open_sweep(path)


def assembled(sweep, store):
    found = assemble_sweep(sweep.spec, sweep.settled, sweep.plan, store)
    json.dumps(found, allow_nan=False)
    return found


def test_before_anything_is_computed_every_row_is_pending_or_left_out(sweep, tmp_path) -> None:
    found = assembled(sweep, CellStore(tmp_path))
    assert [row["status"] for row in found["rows"]] == ["pending", "pending", "excluded"]
    assert not found["complete"]
    assert found["rows"][2]["reason"] == "for the test"
    assert (found["overlap"], found["overlap_ranks"], found["over_seeds"]) == ([], None, [])


def test_finished_cells_are_paired_and_summed_up(sweep, tmp_path) -> None:
    store = CellStore(tmp_path)
    for id_, planned in sweep.plan.wanted.items():
        outcome = work(Task(id_, planned.cell, planned.group.weights, planned.group.data))
        assert isinstance(outcome, Done), outcome
        store.write(id_, outcome.record, outcome.arrays)
    found = assembled(sweep, store)
    assert found["complete"]
    predict, trajectory, _ = found["rows"]
    motion = predict["accuracy"]["motion"]
    assert motion["n"] == 6
    assert motion["low"] <= motion["top1"] <= motion["high"]
    assert motion["diff"] is not None
    assert predict["agreement"]["value"] > 0
    sure = predict["calibration"]["motion"]
    assert 0 <= sure["ece_low"] <= sure["ece_high"] <= 1
    assert 0 <= sure["ece"] <= 1
    assert 0 <= sure["brier_low"] <= sure["brier"] <= sure["brier_high"] <= 2
    assert 1 / 8 < sure["confidence"] <= 1
    assert sure["n"] == 6
    assert predict["paper"] == {"value": 84.96, "gflops": 308, "note": ""}
    assert len(trajectory["values"]["trajectory"]["value"]) == 9
    assert trajectory["accuracy"] == trajectory["calibration"] == {}
    assert sum(found["verdicts"].values()) == len(found["effects"])


def test_a_failed_cell_says_why(sweep, tmp_path) -> None:
    store = CellStore(tmp_path)
    (planned, *_) = sweep.plan.cells
    store.write_failure(planned.id, {"reason": "RuntimeError: no memory"})
    row = assembled(sweep, store)["rows"][0]
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: no memory")


def test_means_leave_out_what_is_not_finite_and_say_how_many_are_left() -> None:
    arrays = {
        "one": np.array([1.0, 2.0, np.nan]),
        "curve": np.array([[1.0, 5.0], [3.0, 5.0], [np.inf, 5.0]]),
        "map": np.zeros((3, 2, 2)),
        "long": np.zeros((3, 500)),
        "lost": np.full(3, np.nan),
        "items": np.arange(3),
        "labels.motion": np.zeros(3),
    }
    found = means(arrays)
    assert found["one"]["value"] == 1.5
    assert found["one"]["n"] == 2
    assert found["curve"]["value"] == [2.0, 5.0]
    assert found["curve"]["n"] == [2, 3]
    assert found["lost"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found.keys() == {"one", "curve", "lost"}


def test_overlaps_and_points_over_seeds_stand_beside_the_rows(tmp_path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(
        "name: two\nbase: {clips: 4, measures: [predict, carried]}\nseeds: [0, 1]\n"
        'axes:\n  - {reducer: [none, "sta:r=16"]}\n'
    )
    sweep, store = open_sweep(path), CellStore(tmp_path)
    for id_, planned in sweep.plan.wanted.items():
        outcome = work(Task(id_, planned.cell, planned.group.weights, planned.group.data))
        assert isinstance(outcome, Done), outcome
        store.write(id_, outcome.record, outcome.arrays)
    found = assembled(sweep, store)
    whole, _, reduced, _ = (row["values"]["patches_carried"] for row in found["rows"] if row["measure"] == "carried")
    assert whole["value"] == 1.0
    assert reduced["value"] < 1.0
    (pair,) = found["overlap"]
    assert (pair["a"], pair["b"], pair["clips"]) == ("none", "sta:r=16", 8)
    assert 0 < pair["iou"] < 1
    assert -1 <= pair["kendall"] <= 1
    assert found["overlap_ranks"] == "probability of the right answer"
    assert [(e["label"], e["seeds"], e["accuracy"]["motion"]["n"]) for e in found["over_seeds"]] == [
        ("none", [0, 1], 8),
        ("sta:r=16", [0, 1], 8),
    ]


def test_notes_of_planning_and_running_are_said_once(sweep, tmp_path) -> None:
    (planned, *_), store = sweep.plan.cells, CellStore(tmp_path)
    noted = replace(planned, notes=("block 1: a; block 2: b",))
    plan = replace(sweep.plan, cells=(noted, *sweep.plan.cells[1:]))
    logits = np.zeros((6, 18), np.float32)
    arrays = {"logits": logits, "features": logits, "items": np.arange(6), "labels.motion": np.zeros(6, np.int64)}
    store.write(planned.id, {"seconds": 1.0, "notes": ["block 1: a", "block 2: b", "a clip is missing"]}, arrays)
    found = assemble_sweep(sweep.spec, sweep.settled, plan, store)
    assert found["rows"][0]["notes"] == ["block 1: a; block 2: b", "a clip is missing"]
