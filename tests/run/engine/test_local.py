"""Worker processes: the same bits as in this process, one outcome for each task, whoever dies."""

from __future__ import annotations

import os
import signal

import pytest

from tokred.run.engine import InParts, make_engine
from tokred.run.engine.local import LocalEngine
from tokred.run.store import CellStore
from tokred.run.work import Done, Failed

# One process runs them all: its engine's workers start once.
pytestmark = pytest.mark.xdist_group("engine_local")


@pytest.fixture(scope="module")
def engine():
    with LocalEngine(workers=2) as engine:
        yield engine


@pytest.mark.parametrize("parts", [1, 3])
def test_a_grid_is_the_same_bit_for_bit_on_any_workers_and_in_any_parts(
    parts, engine, grid, expected, once, tmp_path
) -> None:
    seen: list[int] = []
    inside = InParts(engine, parts, CellStore(tmp_path))
    once(inside.run(grid, seen.append), expected)
    assert sum(seen) == 4 * 8 + 2 * 4
    assert len(engine.pids) == 2


def test_workers_stay_for_the_next_grid(engine, grid, expected, once) -> None:
    list(engine.run(grid[:2]))
    before = engine.pids
    once(engine.run(grid[:2]), {task.id: expected[task.id] for task in grid[:2]})
    assert engine.pids == before


def test_one_worker_is_this_process(grid, expected, once) -> None:
    with make_engine(workers=1) as alone:
        once(alone.run(grid), expected)
        assert alone.pids == []


def test_a_worker_killed_in_the_middle_costs_no_task(engine, grid, expected, once) -> None:
    def outcomes():
        for number, outcome in enumerate(engine.run(grid)):
            if number == 1:
                os.kill(engine.pids[0], signal.SIGKILL)
            yield outcome

    once(outcomes(), expected)


def test_a_worker_killed_while_it_has_nothing_to_do_costs_nothing(engine, grid, expected, once) -> None:
    list(engine.run(grid[:2]))
    killed = engine.pids[0]
    os.kill(killed, signal.SIGKILL)
    once(engine.run(grid[:3]), {task.id: expected[task.id] for task in grid[:3]})
    assert killed not in engine.pids


def test_a_task_that_kills_its_worker_is_tried_again(engine, task_of, deadly, grid, tmp_path) -> None:
    deadly_once = task_of(deadly("Dies:folder={folder},times=1"))
    found = {outcome.task.id: outcome for outcome in engine.run([deadly_once, grid[0]])}
    assert len(list((tmp_path / "marks").iterdir())) == 1
    assert isinstance(found[deadly_once.id], Done)
    assert isinstance(found[grid[0].id], Done)


def test_a_task_that_kills_every_worker_has_failed(engine, task_of, deadly, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tokred.run.engine.pending.MOST_DEATHS", 1)  # each start of a worker takes seconds
    (failed,) = engine.run([task_of(deadly("Dies:folder={folder},times=100"))])
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("its worker died 1 time, the last time: killed by SIGKILL")
    assert len(list((tmp_path / "marks").iterdir())) == 1


def test_whatever_a_task_does_wrong_is_its_outcome(engine, task_of, deadly) -> None:
    leaves, unknown = task_of(deadly("Leaves")), task_of("sta:r=100000")
    found = {outcome.task.id: outcome for outcome in engine.run([leaves, unknown])}
    assert found[leaves.id].reason == "SystemExit: no more"
    assert "deadly.py" in found[leaves.id].traceback
    assert "100000" in found[unknown.id].reason


def test_a_loop_that_is_left_early_leaves_nothing_behind(engine, expected, once, grid, task_of, deadly) -> None:
    running = engine.run([grid[0], task_of(deadly("Slow:folder={folder},seconds=600"))])
    next(running)
    running.close()
    once(engine.run(grid[:2]), {task.id: expected[task.id] for task in grid[:2]})


def test_closing_ends_every_process(engine, all_gone) -> None:
    pids = engine.pids
    assert pids
    engine.close()
    assert all_gone(pids, 0.5)
