"""One big data set on several workers: each cell in parts, joined as if it had been computed whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from tokred.data.parts import part_of
from tokred.data.source import Source
from tokred.run.cell import Cell
from tokred.run.engine.base import Advance, Closing, Engine, EngineError, Outcome
from tokred.run.evaluate import Arrays
from tokred.run.store import CellStore
from tokred.run.work import Done, Failed, Task, opened


class InParts(Closing):
    """An engine whose tasks are each divided among the workers of another one.

    Finished parts are kept in the store until their cell is whole, so that a run that was stopped continues with the
    parts that are missing.

    Args:
        engine: computes the parts; closed with this one.
        parts: of every cell, as far as its data set has so many batches.
        store: where finished parts are kept; only this process writes there.
    Raises:
        EngineError: fewer than one part.
    """

    def __init__(self, engine: Engine, parts: int, store: CellStore) -> None:
        if parts < 1:
            raise EngineError(f"parts = {parts} must be at least 1")
        self._engine, self._parts, self._store = engine, parts, store

    @property
    def workers(self) -> int:
        """Those of the engine inside."""
        return self._engine.workers

    def __enter__(self) -> InParts:
        return self

    def run(self, tasks: Sequence[Task], advance: Advance | None = None) -> Iterator[Outcome]:
        """One outcome per task, as without parts; a cell has failed when one of its parts has."""
        missing: dict[str, int] = {}
        found: dict[str, list[Done]] = {}
        failed: dict[str, Failed] = {}
        wholes: dict[str, Task] = {}
        todo: list[Task] = []
        sources: dict[Cell, Source] = {}
        for task in tasks:
            try:
                source = sources.setdefault(_data(task.cell), opened(task.cell))
                pieces = split(task, self._parts, source)
            except (ValueError, OSError) as error:
                yield Failed(task, f"{type(error).__name__}: {error}")
                continue
            wholes[task.id], found[task.id] = task, []
            for piece in pieces:
                kept = None if piece.items is None else self._store.read(name(piece))
                if kept is None:
                    todo.append(piece)
                    missing[task.id] = missing.get(task.id, 0) + 1
                else:
                    found[task.id].append(Done(piece, *kept))
                    if advance is not None:
                        advance(len(kept[1].get("items", ())))
            if task.id not in missing:
                yield self._whole(task, found.pop(task.id), None)
                self._forget(task)
        for outcome in self._engine.run(todo, advance):
            id_ = outcome.task.id
            missing[id_] -= 1
            if isinstance(outcome, Done):
                if outcome.task.items is not None:
                    self._store.write(name(outcome.task), outcome.record, outcome.arrays)
                found[id_].append(outcome)
            else:
                failed.setdefault(id_, outcome)
            if not missing[id_]:
                yield self._whole(wholes[id_], found.pop(id_), failed.get(id_))
                self._forget(wholes[id_])

    def close(self) -> None:
        """Close the engine inside."""
        self._engine.close()

    def _forget(self, task: Task) -> None:
        """Remove the parts of a cell, whatever it was divided into, if the caller has put the whole into the store."""
        if self._store.read(task.id) is not None:
            for path in self._store.folder.glob(f"{task.id}.*-*.json"):
                self._store.forget(path.name.removesuffix(".json"))

    def _whole(self, task: Task, found: list[Done], failed: Failed | None) -> Outcome:
        return join(task, found) if failed is None else replace(failed, task=task)


def name(part: Task) -> str:
    """Under which a part is kept: ``<id>.<first>-<behind the last>``; the id of the cell for a whole one."""
    return part.id if part.items is None else f"{part.id}.{part.items[0]}-{part.items[1]}"


def split(task: Task, parts: int, source: Source) -> list[Task]:
    """The task in contiguous parts of nearly equal size that begin where a batch begins.

    The views of an item stay together: a part begins at a multiple of the batch size in items, and there a batch
    begins however many views an item has (see ``tokred.data.parts.aligned``).

    Args:
        parts: how many, as far as there are so many batches of items.
        source: the clips of the task, opened; nothing is decoded.
    Raises:
        ValueError: the source cannot be divided.
    """
    total, batch = len(source), task.cell.batch
    blocks = -(-total // batch)
    count = min(parts, blocks)
    if count <= 1:
        return [task]
    edges = [min(total, index * blocks // count * batch) for index in range(count + 1)]
    return [
        replace(task, items=(first, stop), part=part_of(source, range(first, stop)).digest())
        for first, stop in pairwise(edges)
    ]


def join(task: Task, parts: Sequence[Done]) -> Outcome:
    """The whole from all of its parts, in any order: arrays as if it had been computed at once."""
    if len(parts) == 1 and parts[0].task.items is None:
        return parts[0]
    ordered = sorted(parts, key=lambda part: part.task.items or (0, 0))
    filled = [part.arrays for part in ordered if part.arrays]
    if not filled:
        return Failed(task, f"{task.cell.clips.data} gave no clip that can be used")
    arrays: Arrays = {key: np.concatenate([each[key] for each in filled]) for key in filled[0]}
    record = {
        **ordered[0].record,
        "seconds": sum(part.record["seconds"] for part in ordered),
        "notes": list(dict.fromkeys(note for part in ordered for note in part.record["notes"])),
        "failures": [failure for part in ordered for failure in part.record["failures"]],
        "parts": len(ordered),
    }
    return Done(task, record, arrays)


def _data(cell: Cell) -> Cell:
    """What the clips of a cell depend on."""
    return replace(cell, reducer="none", measure="", batch=1)
