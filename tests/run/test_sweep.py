"""A sweep computes what is missing, keeps what is finished, and ends in the same table however often it was killed."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokred.run import sweep as sweep_module
from tokred.run.engine import make_engine
from tokred.run.spec_file import SpecError
from tokred.run.store import CellStore
from tokred.run.sweep import Sweep, SweepStopped, failed_cells, open_sweep, run_sweep
from tokred.run.work import Done, Failed, Task, work

CONTENT: dict[str, Any] = {
    "name": "small",
    "base": {"clips": 4, "batch_size": 2, "reducer": "sta:r=8"},
    "axes": [{"reducer.order": ["FBF", "BFB"]}, {"reducer.r": [4, 12]}],
    "excludes": [{"when": {"reducer.order": "BFB", "reducer.r": 4}, "reason": "known"}],
}
CELLS = 4


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return open_sweep(write(tmp_path_factory.mktemp("sweep")))


def write(folder: Path, **changes: Any) -> Path:
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, **changes}))
    return file


class Serial:
    """Tasks in this process; ``failing``: ids that fail; ``stop_after``: cells before Ctrl-C."""

    workers = 1

    def __init__(self, failing: Sequence[str | None] = (), stop_after: int | None = None) -> None:
        self.failing, self.stop_after = failing, stop_after
        self.computed: list[str] = []

    def run(self, tasks: Sequence[Task], advance: Any = None) -> Iterator[Done | Failed]:
        for number, task in enumerate(tasks):
            if number == self.stop_after:
                raise KeyboardInterrupt
            self.computed.append(task.id)
            yield Failed(task, "ValueError: no", "Traceback ...") if task.id in self.failing else work(task)

    def close(self) -> None:
        return

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *_: object) -> None:
        return


def run(sweep: Sweep, out: Path, engine: Serial | None = None, **more: Any) -> tuple[dict[str, Any], list[str]]:
    engine = engine or Serial()
    return run_sweep(sweep, out, engine, **more), engine.computed


def table(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows without what time decides."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in results["rows"]]


@pytest.fixture(scope="module")
def undisturbed(sweep: Sweep, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("undisturbed")
    return run(sweep, out)[0], out


def test_every_cell_is_computed_once_and_written_down(sweep: Sweep, undisturbed: tuple[dict[str, Any], Path]) -> None:
    found, out = undisturbed
    assert [row["status"] for row in found["rows"]] == ["done", "done", "excluded", "done"]
    assert found["complete"]
    assert found["rows"][0]["accuracy"].keys() == {"appearance", "motion"}
    assert json.loads((out / "sweep.json").read_text()) == found
    assert {path.stem for path in (out / "cells").glob("*.json")} == set(sweep.plan.wanted)
    assert len(sweep.plan.wanted) == CELLS
    assert run(sweep, out)[1] == []


def test_a_missing_or_broken_cell_is_computed_again(
    sweep: Sweep, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    store = CellStore(tmp_path)
    whole = CellStore(undisturbed[1])
    first, second, *rest = sweep.plan.wanted
    for id_ in (second, *rest):
        kept = whole.read(id_)
        assert kept is not None
        store.write(id_, *kept)
    (store.folder / f"{second}.npz").write_bytes(b"half a file")
    found, computed = run(sweep, tmp_path)
    assert computed == [first, second]
    assert table(found) == table(undisturbed[0])


def test_a_failed_cell_keeps_its_traceback_and_stops_nothing(sweep: Sweep, tmp_path: Path) -> None:
    bad = sweep.plan.cells[1].id
    found, computed = run(sweep, tmp_path, Serial(failing=[bad]))
    assert len(computed) == CELLS
    assert [row["status"] for row in found["rows"]] == ["done", "failed", "excluded", "done"]
    assert found["rows"][1]["reason"] == "ValueError: no"
    assert not found["complete"]
    assert bad is not None
    assert (CellStore(tmp_path).failure(bad) or {})["traceback"] == "Traceback ..."
    assert list(failed_cells(sweep, CellStore(tmp_path)).values()) == ["ValueError: no"]
    assert run(sweep, tmp_path)[1] == []
    found, computed = run(sweep, tmp_path, retry_failed=True)
    assert computed == [bad]
    assert found["complete"]
    assert failed_cells(sweep, CellStore(tmp_path)) == {}


def test_fresh_computes_everything_and_a_failure_replaces_what_was_found(sweep: Sweep, tmp_path: Path) -> None:
    run(sweep, tmp_path)
    bad = sweep.plan.cells[0].id
    found, computed = run(sweep, tmp_path, Serial(failing=[bad]), fresh=True)
    assert len(computed) == CELLS
    assert found["rows"][0]["status"] == "failed"


def test_ctrl_c_keeps_what_is_finished(sweep: Sweep, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    found, computed = run(sweep, tmp_path, Serial(stop_after=2))
    assert len(computed) == 2
    assert not found["complete"]
    assert [row["status"] for row in found["rows"]] == ["done", "pending", "excluded", "pending"]
    found, computed = run(sweep, tmp_path)
    assert len(computed) == CELLS - 2
    assert table(found) == table(undisturbed[0])


def test_parts_and_engines_give_the_same_table(
    sweep: Sweep, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    with make_engine("local", workers=1) as engine:
        found = run_sweep(sweep, tmp_path, engine, parts=2)
    assert table(found) == table(undisturbed[0])
    assert {path.stem for path in (tmp_path / "cells").glob("*.json")} == set(sweep.plan.wanted)


def test_killed_at_random_points_it_ends_in_the_same_table(
    sweep: Sweep, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    found = undisturbed[0]
    seconds = CELLS * found["rows"][-1]["seconds"]  # the first cell also makes the clips, which children inherit
    store = CellStore(tmp_path)
    moments = random.Random(0)
    kept: set[str] = set()
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                run(sweep, tmp_path)
            finally:
                os._exit(0)
        time.sleep(moments.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in [*store.folder.glob("[!.]*.json"), *tmp_path.glob("*.json")]:
            json.loads(path.read_text())
        whole = {id_ for id_ in sweep.plan.wanted if store.read(id_) is not None}
        assert whole >= kept
        kept = whole
    again, computed = run(sweep, tmp_path)
    assert set(computed) == set(sweep.plan.wanted) - kept
    assert table(again) == table(found)


def test_what_a_killed_run_was_writing_goes_away(
    sweep: Sweep, undisturbed: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    shutil.copytree(undisturbed[1], tmp_path / "run")
    old, young = (tmp_path / "run" / "cells" / f".{name}.npz.1.tmp" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    run(sweep, tmp_path / "run")
    assert (old.exists(), young.exists()) == (False, True)


def test_a_full_disk_is_one_line_and_loses_nothing(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = CellStore.write
    written: list[str] = []

    def full(self: CellStore, *arguments: Any) -> None:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(arguments[0])
        keep(self, *arguments)

    monkeypatch.setattr(CellStore, "write", full)
    with pytest.raises(SweepStopped, match=r"No space left on device; 2 of 4 cells are kept"):
        run(sweep, tmp_path)
    monkeypatch.undo()
    assert len(run(sweep, tmp_path)[1]) == CELLS - 2


def test_results_that_cannot_be_written_are_no_traceback(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sweep_module, "write_atomic", full)
    with pytest.raises(SweepStopped, match="4 of 4 cells are kept"):
        run(sweep, tmp_path)


def test_the_file_and_its_cells_are_told_together(tmp_path: Path) -> None:
    file = write(tmp_path, titel="x", axes=[{"reducer.r": [4, 400]}], excludes=[])
    with pytest.raises(SpecError, match="problem") as caught:
        open_sweep(file)
    assert [line.partition(": ")[0] for line in caught.value.problems] == ["titel", "axes[0].reducer.r"]


def test_a_run_goes_to_the_same_folder_for_the_same_file(tmp_path: Path, sweep: Sweep) -> None:
    assert sweep.folder == Path("results/small")
    assert open_sweep(write(tmp_path, profiles={"nano": {}})).folder == Path("results/small-nano")
