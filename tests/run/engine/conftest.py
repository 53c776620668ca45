"""Small grids of cells, what they give in this process, and reducers that take their process with them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tokred.registry import class_or_reducer
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.engine import Outcome
from tokred.run.reducer_digest import source_digests
from tokred.run.work import Done, Task, _host, opened, work

DEADLY = '''
from __future__ import annotations
import os, pathlib, signal, sys, time
from tokred.methods.baselines import Unreduced

class Dies(Unreduced):
    """Kills its process as often as it is told, then does nothing."""
    def __init__(self, folder: str = "", times: int = 0) -> None:
        super().__init__()
        made = len(list(pathlib.Path(folder).iterdir()))
        if made < times:
            (pathlib.Path(folder) / str(made)).touch()
            os.kill(os.getpid(), signal.SIGKILL)

class Leaves(Unreduced):
    """Ends the interpreter, as a careless script does."""
    def __init__(self) -> None:
        super().__init__()
        sys.exit("no more")

class Slow(Unreduced):
    """Says that it is being built, and takes its time."""
    def __init__(self, folder: str = "", seconds: float = 60.0, nr: int = 0) -> None:
        super().__init__()
        (pathlib.Path(folder) / f"slow-{nr}-{os.getpid()}").touch()
        time.sleep(seconds)
'''


def make_task(reducer: str = "none", clips: ClipSettings | None = None, *, batch: int = 2, **settings: str) -> Task:
    """One cell of a nano model as a task; without ``clips`` on eight generated ones."""
    cell = Cell(settings.pop("backbone", "videomae_vit_nano"), reducer, clips or ClipSettings(clips=8), batch=batch)
    weights = _host(cell.backbone, None, None, "cpu", "float32")[2]
    data = opened(cell).digest()
    # Some of these end the process when they are built: the class alone is asked.
    file, name = [*reducer.split(":"), ""][:2]
    kind = class_or_reducer(f"{file}:{name}") if file.endswith(".py") else None
    source = "-".join(source_digests([kind])) if isinstance(kind, type) else None
    return Task(cell.id(weights, data, source), cell, weights, data, source)


def assert_once(outcomes: Iterable[Outcome], expected: Mapping[str, Outcome]) -> None:
    """Every task has one outcome, which is the expected one bit for bit."""
    found = list(outcomes)
    assert sorted(outcome.task.id for outcome in found) == sorted(expected)
    for outcome in found:
        assert isinstance(outcome, Done), outcome
        same(outcome, expected[outcome.task.id])


def same(found: Outcome, expected: Outcome) -> None:
    """The same arrays, bit for bit."""
    assert isinstance(found, Done), found
    assert isinstance(expected, Done), expected
    assert found.arrays.keys() == expected.arrays.keys()
    for name, values in expected.arrays.items():
        assert found.arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(found.arrays[name], values, err_msg=name)


def gone(pids: Iterable[int], seconds: float = 30.0) -> bool:
    """Whether all processes end before the time is over."""
    left, deadline = set(pids), time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        left = {pid for pid in left if alive(pid)}
        time.sleep(0.05)
    return not left


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be buried does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.fixture(scope="session")
def task_of() -> Callable[..., Task]:
    return make_task


@pytest.fixture(scope="session")
def once() -> Callable[[Iterable[Outcome], Mapping[str, Outcome]], None]:
    return assert_once


@pytest.fixture(scope="session")
def all_gone() -> Callable[[Iterable[int]], bool]:
    return gone


@pytest.fixture(scope="session")
def grid() -> Sequence[Task]:
    """Six cells, of which two are on other clips."""
    other = ClipSettings(clips=4, seed=1)
    return [*(make_task(f"sta:r={r}") for r in (1, 5)), make_task("tome:r=3"), make_task("random_drop:keep=0.5")] + [
        make_task(spec, other) for spec in ("none", "eventful")
    ]


@pytest.fixture(scope="session")
def expected(grid: Sequence[Task]) -> Mapping[str, Outcome]:
    """The grid, computed in this process."""
    return {task.id: work(task) for task in grid}


@pytest.fixture
def deadly(tmp_path: Path) -> Callable[[str], str]:
    """The spec of a reducer in a file of the user's: "Dies:times=1", "Leaves"; {folder} is an empty folder."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    (tmp_path / "marks").mkdir()
    return lambda spec: f"{tmp_path}/deadly.py:{spec}".replace("{folder}", str(tmp_path / "marks"))
