"""Who computes which task next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.engine.pending import MOST_DEATHS, Pending, key_of
from tokred.run.work import Failed, Task


def task(clips: str, number: int = 0, items: tuple[int, int] | None = None) -> Task:
    return Task(f"{clips}{number}", Cell("m", f"sta:r={number}", ClipSettings(clips)), "w", "d", items=items)


def test_a_worker_stays_with_the_clips_that_it_has() -> None:
    tasks = [task("a", 0), task("b", 0), task("a", 1), task("b", 1)]
    pending = Pending(tasks)
    assert pending.take(None) == 0
    assert pending.take(None, {key_of(tasks[0])}) == 1
    assert pending.take(key_of(tasks[1])) == 3
    assert pending.take(key_of(tasks[0])) == 2
    assert pending.take(None) is None


def test_a_worker_without_work_helps_with_the_longest_group() -> None:
    tasks = [task("a", 0), task("b", 0), task("b", 1)]
    keys = {key_of(t) for t in tasks}
    assert Pending(tasks).take(None, keys) == 1


def test_another_part_of_the_clips_is_other_clips() -> None:
    assert key_of(task("a", 0, (0, 4))) != key_of(task("a", 0, (4, 8)))
    assert key_of(task("a", 0, (0, 4))) == key_of(task("a", 1, (0, 4)))
    assert key_of(task("a")) != key_of(replace(task("a"), cell=Cell("other", "none", ClipSettings("a"))))


def test_a_task_whose_worker_dies_is_next_and_fails_in_the_end() -> None:
    pending = Pending([task("a", 0), task("a", 1)])
    for attempt in range(MOST_DEATHS):
        number = pending.take(None)
        assert number == 0, attempt
        outcome = pending.died(number, "killed by SIGKILL")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "its worker died 3 times, the last time: killed by SIGKILL"
    assert (pending.open, pending.waiting) == (1, 1)


@pytest.mark.parametrize("died_at", [0, 2, 5])
def test_clips_that_are_computed_again_are_counted_once(died_at) -> None:
    pending = Pending([task("a")])
    counted = [pending.counted(0, clips) for clips in range(1, died_at + 1)]
    counted += [pending.counted(0, clips) for clips in range(1, 5 + 1)]
    assert sum(counted) == 5
