"""One cell computed: checked against what was planned, and never an exception."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tokred
from tokred.backbones.spec import backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.registry import build
from tokred.run import work as module
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings, open_clips, prepare
from tokred.run.evaluate import predict
from tokred.run.reducer_digest import reducer_digest
from tokred.run.work import Done, Failed, Task, _host, opened, work

CELL = Cell("videomae_vit_nano", "sta:r=4", ClipSettings(clips=3), batch=2)


@pytest.fixture(scope="module")
def task() -> Task:
    weights = _host(CELL.backbone, None, None, "cpu", "float32")[2]
    return Task("id", CELL, weights, opened(CELL).digest())


def test_a_task_finds_what_the_attached_model_says(task) -> None:
    seen: list[int] = []
    found = work(task, seen.append)
    assert isinstance(found, Done)
    assert sum(seen) == 3
    model = tokred.attach(create_backbone(CELL.backbone), tokred.build(CELL.reducer))
    spec = backbone_info(model.host).spec
    expected = predict(model, prepare(open_clips(CELL.clips, spec), spec, 18), spec, batch_size=2)
    for name, values in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], values)
    assert found.record["reducer"] == "sta:r=4"
    assert found.record["failures"] == []
    assert found.record["seconds"] > 0


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"weights": "0"}, "ValueError: the weights of videomae_vit_nano are not those that this run was planned with"),
        ({"data": "0"}, "ValueError: the clips of synthetic are not those that this run was planned with"),
        ({"items": (2, 9)}, "ValueError: items 2 to 9 are no part of a set of 3"),
    ],
)
def test_what_is_not_as_planned_is_refused(task, changed, reason) -> None:
    found = work(replace(task, **changed))
    assert isinstance(found, Failed)
    assert found.reason == reason
    assert "Traceback" in found.traceback


def test_a_script_that_leaves_python_fails_only_its_task(task, monkeypatch) -> None:
    def leave(spec: str) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(module, "build", leave)
    found = work(task)
    assert isinstance(found, Failed)
    assert found.reason == "SystemExit: 3"


def test_ctrl_c_is_no_outcome(task, monkeypatch) -> None:
    def interrupt(spec: str) -> None:
        raise KeyboardInterrupt("the user")

    monkeypatch.setattr(module, "build", interrupt)
    with pytest.raises(KeyboardInterrupt, match="the user"):
        work(task)


def test_clips_are_prepared_once_for_the_next_task(task, monkeypatch) -> None:
    made: list[int] = []

    def counted(*arguments):
        made.append(1)
        return prepare(*arguments)

    monkeypatch.setattr(module, "prepare", counted)
    monkeypatch.setattr(module, "_SOURCES", {})
    part = replace(task, items=(0, 2), part=task.data)
    for each in (task, replace(task, cell=replace(CELL, reducer="none")), part, part):
        assert isinstance(work(each), Done)
    assert len(made) == 2


def test_a_reducer_whose_file_changed_since_the_plan_is_not_computed(task, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = "from tokred.methods import TopK\nclass Mine(TopK):\n    pass\n"
    file.write_text(text)
    cell = replace(CELL, reducer=f"{file}:Mine:keep=0.5")
    planned = replace(task, cell=cell, reducer=reducer_digest(build(cell.reducer)))
    assert isinstance(work(planned), Done)
    file.write_text(text + "# edited\n")
    outcome = work(planned)
    assert isinstance(outcome, Failed)
    assert "is not what this run was planned with" in outcome.reason
