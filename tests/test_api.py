"""Whole commands as calls: the same cells, the same numbers and the same refusals as the commands'."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pandas.testing import assert_frame_equal

import tokred
from tokred.cli import main
from tokred.methods import STA
from tokred.run import sweep as sweep_module
from tokred.run.engine import local
from tokred.run.spec_file import SpecError
from tokred.run.work import Done, Failed, Task, work

CONTENT: dict[str, Any] = {
    "name": "small",
    "base": {"clips": 3, "batch_size": 3, "reducer": "sta:r=8"},
    "axes": [{"reducer.r": [4, 12]}],
    "paper": {
        "rows": [{"at": {"reducer.r": 4}, "value": 80.0}, {"at": {"reducer.r": 12}, "value": 79.0}],
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return tokred.sweep(CONTENT, out=tmp_path_factory.mktemp("run") / "small")


def command(*words: object) -> None:
    """``tokred WORDS...``, which ends well."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main([str(word) for word in words])


def without_time(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="seconds")


def test_the_frame_is_what_results_reads(run: pd.DataFrame) -> None:
    assert_frame_equal(run, tokred.results(run.attrs["folder"]))
    assert list(run["reducer"]) == ["sta:r=4", "sta:r=12"]
    assert list(run["status"]) == ["done", "done"]


def test_beside_the_frame_stand_text_effects_and_pictures(run: pd.DataFrame) -> None:
    folder = Path(run.attrs["folder"])
    assert run.attrs["table"] == (folder / "table.md").read_text()
    assert {effect["label"] for effect in run.attrs["effects"]} == {"appearance", "motion"}
    assert {effect["paper"] for effect in run.attrs["effects"]} == {-1.0}
    assert run.attrs["verdicts"] == dict(Counter(effect["verdict"] for effect in run.attrs["effects"]))
    gap = run["motion_top1"][1] - run["motion_top1"][0]
    (motion,) = (effect for effect in run.attrs["effects"] if effect["label"] == "motion")
    assert motion["ours"] == pytest.approx(gap)
    assert {Path(path) for path in run.attrs["figures"].values()} == set(folder.glob("*.png")) != set()
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in run.attrs["figures"].values())
    assert Path(run.attrs["report"]).read_text().startswith("<!DOCTYPE html>")


def test_the_command_finds_the_same_cells_and_numbers(run: pd.DataFrame, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(CONTENT))
    command("sweep", file, "--out", tmp_path / "small", "--workers", 1)
    assert_frame_equal(without_time(tokred.results(tmp_path / "small")), without_time(run))
    # A finished run is read and not computed again: its seconds stay.
    assert_frame_equal(tokred.sweep(file, out=tmp_path / "small"), tokred.results(tmp_path / "small"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cells that are handed to an engine."""
    ids: list[str] = []
    estimate = sweep_module.estimate

    def spy(*args: Any, **more: Any) -> Any:
        cost = estimate(*args, **more)
        ids.extend(cost.todo)
        return cost

    monkeypatch.setattr(sweep_module, "estimate", spy)
    return ids


def test_sweeps_with_the_same_cells_compute_what_they_share_once(
    run: pd.DataFrame, tmp_path: Path, computed: list[str]
) -> None:
    frame = tokred.sweep(CONTENT, out=tmp_path / "again", cells=run.attrs["folder"], set=["axes.r=[12]"])
    assert computed == []
    assert list(frame["cell"]) == [run["cell"][1]]
    assert not (tmp_path / "again" / "cells").exists()
    tokred.sweep(CONTENT, out=tmp_path / "again", cells=run.attrs["folder"], set=["axes.r=[12]"], fresh=True)
    assert run["cell"][1] in computed


def test_without_a_folder_it_goes_where_the_command_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = tokred.sweep({**CONTENT, "profiles": {"nano": {}}}, set=["axes.r=[4]"], profile="nano")
    assert frame.attrs["folder"] == str(Path("results") / "small-nano")
    assert (tmp_path / "results" / "small-nano" / "sweep.json").exists()


WRONG = [
    ({"titel": "x"}, "titel: unknown key; did you mean title?"),
    ({"axes": [{"reducer.r": [4, 400]}]}, "axes[0].reducer.r: 400 is not below "),
    ({"base": {"clips": 0}}, "base.clips: "),
    ({"name": "a b"}, "name: "),
    ({"axes": "order"}, "axes: "),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_a_mapping_is_refused_as_a_file_is(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    content = {**CONTENT, **changes}
    content.pop("paper")
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="problem") as of_file:
        tokred.sweep(file, out=tmp_path / "run")
    with pytest.raises(SpecError, match="problem") as of_mapping:
        tokred.sweep(content, out=tmp_path / "run")
    assert isinstance(of_mapping.value, ValueError)
    assert of_mapping.value.problems == of_file.value.problems
    assert any(problem.startswith(said) for problem in of_mapping.value.problems)
    assert not (tmp_path / "run").exists()


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"base": value}
    return value


def looped() -> list[Any]:
    values: list[Any] = [4]
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Path("x"), r"PosixPath\('x'\) is a PosixPath; allowed are mappings, lists, strings, numbers"),
        (np.float64(8), r"np.float64\(8.0\) is a float64; allowed"),
        (looped(), "cannot be read as YAML"),
        (nested(2000), "nested too deeply"),
    ],
)
def test_a_mapping_holds_what_a_file_can_hold(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=said):
        tokred.sweep({**CONTENT, "axes": [{"reducer.r": value}]}, out=tmp_path / "run")


def test_tuples_are_lists(run: pd.DataFrame, tmp_path: Path) -> None:
    content = {**CONTENT, "axes": ({"reducer.r": (4, 12)},)}
    frame = tokred.sweep(content, out=tmp_path / "run", cells=run.attrs["folder"])
    assert list(frame["cell"]) == list(run["cell"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"set": "base.clips=3"}, r"give a list: \['base.clips=3'\]"),
        ({"set": ["base.clisp=3"]}, r"did you mean clips\?"),
        ({"engine": "lokal"}, r"did you mean local\?"),
        ({"workers": 0}, "workers = 0 must be at least 1"),
        ({"device": "tpu7"}, "'tpu7' is not a device; allowed are cpu"),
        ({"profile": "nanno"}, "no profile is called 'nanno'"),
        ({"out": __file__}, "is a file; allowed is a folder"),
    ],
)
def test_what_cannot_be_run_is_said_before_anything_is(
    more: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=said):
        tokred.sweep(CONTENT, **more)
    assert not list(tmp_path.iterdir())


def test_a_cell_that_fails_is_a_line_and_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(task: Task, advance: object) -> Done | Failed:
        return (
            Failed(task, "RuntimeError: out of cheese", "Traceback ...") if "r=12" in task.cell.reducer else work(task)
        )

    monkeypatch.setattr(local, "work", fails)
    with pytest.warns(RuntimeWarning, match=r"1 of 3 cells failed: sta:r=12 \(\w+\): RuntimeError: out of cheese"):
        frame = tokred.sweep(CONTENT, out=tmp_path / "run")
    assert list(frame["status"]) == ["done", "failed"]
    assert frame["reason"][1] == "RuntimeError: out of cheese"
    monkeypatch.undo()
    with pytest.warns(RuntimeWarning, match="1 of 3 cells failed"):
        tokred.sweep(CONTENT, out=tmp_path / "run")
    assert list(tokred.sweep(CONTENT, out=tmp_path / "run", retry_failed=True)["status"]) == ["done", "done"]


def test_ctrl_c_is_passed_on_after_everything_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_module, "_compute", stops)
    with pytest.raises(KeyboardInterrupt, match="the same call goes on from there"):
        tokred.sweep(CONTENT, out=tmp_path / "run")
    assert set(tokred.results(tmp_path / "run")["status"]) == {"pending"}


def test_show_draws_what_the_command_draws(tmp_path: Path) -> None:
    from PIL import Image

    shown = tokred.show("synthetic", ["sta:r=22", "tome:r=20"], stages=1, clip=2)
    assert [one.spec for one in shown.reducers] == ["sta:r=22", "tome:r=20"]
    assert [one.stages[-1].tokens for one in shown.reducers] == [204, 332]
    out = tmp_path / "show.png"
    of = ("--stages", 1, "--clip", 2, "--out", out)
    command("show", "synthetic", "--reducer", "sta:r=22", "--reducer", "tome:r=20", *of)
    assert np.array_equal(np.asarray(Image.open(out)), shown.picture())
    assert shown.save(tmp_path / "again.png").read_bytes() == out.read_bytes()


def test_show_takes_a_clip_and_a_reducer() -> None:
    clip = torch.zeros(3, 16, 64, 64)
    (one,) = tokred.show(clip, [STA(r=8)], stages=2).reducers
    assert one.spec == "sta:r=8"
    assert one.stages[-1].source.shape == (8, 8, 8)
    batch = tokred.show(clip[None], ["sta:r=8"], stages=2)
    assert np.array_equal(batch.reducers[0].stages[-1].source, one.stages[-1].source)


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (("synthetic", "sta"), {}, r"reducers = 'sta' is one text; give a list: \['sta'\]"),
        (("synthetic", []), {}, "no reducer is given"),
        (("synthetic", ["stta"]), {}, "did you mean"),
        (("synthetic", ["sta"]), {"stages": 0}, "stages = 0 at least 1"),
        (("synthetic", ["sta"]), {"clip": -1}, "clip = -1 must be at least 0"),
        (("synthetic", ["sta"]), {"dtype": "int8"}, "dtype = 'int8' is no floating-point type"),
        (("synthetic", ["sta"]), {"device": "tpu7"}, "'tpu7' is not a device"),
        ((torch.zeros(3, 8, 64, 64), ["sta"]), {}, r"shape \(3, 8, 64, 64\) was given; .* takes \(3, 16, 64, 64\)"),
        ((torch.zeros(3, 16, 64, 64), ["sta"]), {"clip": 1}, "one clip was given: clip 0"),
        ((Path("nowhere.mp4"), ["sta"]), {}, "no such file"),
    ],
)
def test_what_cannot_be_shown_is_refused(words: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tokred.show(*words, **more)


def test_nothing_warns_in_a_run_that_went_well(run: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokred.sweep(CONTENT, out=run.attrs["folder"])
