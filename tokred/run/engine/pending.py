"""The tasks that wait: who takes which next, and how often a task may take its worker with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

from tokred.run.work import Failed, Task

MOST_DEATHS = 3
"""A task whose worker died is tried again twice."""

Key = tuple[Any, ...]
"""What a worker keeps in memory for a task: the host, and the clips."""


def key_of(task: Task) -> Key:
    """Tasks of the same key are best computed by the same worker."""
    cell = task.cell
    return (cell.backbone, cell.checkpoint, cell.num_classes, cell.dtype, cell.clips, task.items)


class Pending:
    """Tasks by number, each of which gets exactly one outcome.

    Args:
        tasks: in the order in which they are begun, as far as workers may stay with what they have in memory.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = list(tasks)
        self.open = len(self.tasks)
        self._groups: dict[Key, deque[int]] = {}
        for number, task in enumerate(self.tasks):
            self._groups.setdefault(key_of(task), deque()).append(number)
        self._deaths = [0] * len(self.tasks)
        self._counted = [0] * len(self.tasks)

    @property
    def waiting(self) -> int:
        """Tasks that nobody computes."""
        return sum(len(group) for group in self._groups.values())

    def take(self, last: Key | None, held: Collection[Key] = ()) -> int | None:
        """The next task for a worker; None where all are taken.

        Args:
            last: what the worker has in memory; held: what the other workers have.
        """
        groups = {key: group for key, group in self._groups.items() if group}
        if not groups:
            return None
        if last in groups:
            return groups[last].popleft()
        free = [key for key in groups if key not in held]
        # Where every group has its worker, help out with the longest one.
        return (groups[free[0]] if free else max(groups.values(), key=len)).popleft()

    def done(self, number: int) -> None:
        """A task has its outcome."""
        self.open -= 1

    def died(self, number: int, reason: str) -> Failed | None:
        """The worker of a task died: the task waits again, or has failed."""
        self._deaths[number] += 1
        task = self.tasks[number]
        if self._deaths[number] < MOST_DEATHS:
            self.back(number)
            return None
        self.done(number)
        return Failed(task, f"its worker died {MOST_DEATHS} time{'s' * (MOST_DEATHS > 1)}, the last time: {reason}")

    def back(self, number: int) -> None:
        """A task that nobody began after all waits again, before the others of its group."""
        self._groups[key_of(self.tasks[number])].appendleft(number)

    def counted(self, number: int, clips: int) -> int:
        """How many of the ``clips`` that a task has done in this attempt no earlier one counted."""
        more = max(0, clips - self._counted[number])
        self._counted[number] += more
        return more
