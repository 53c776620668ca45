"""Parts of a data set: the same batches, so the same bits, whether one process measures all items or several."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import groupby
from typing import Protocol, TypeVar

import torch

from tokred.data.source import Batch, Divisible, Failure, Source


class Wrapper(Protocol):
    """A source that changes the clips of another one."""

    _source: Source
    failures: list[Failure]
    notes: list[str]


W = TypeVar("W", bound=Wrapper)


def check_part(items: range, total: int) -> range:
    """The items of a part.

    Raises:
        ValueError: empty, with gaps, or not inside the set.
    """
    if not (0 <= items.start < items.stop <= total and items.step == 1):
        raise ValueError(f"items {items.start} to {items.stop} are no part of a set of {total}")
    return items


def wrapped_part(wrapper: W, items: range) -> W:
    """The same change of a part of the other source.

    Raises:
        ValueError: the other source cannot be divided.
    """
    part = copy.copy(wrapper)
    part._source = part_of(wrapper._source, items)
    part.failures, part.notes = part._source.failures, part._source.notes
    return part


def part_of(source: Source, items: range) -> Source:
    """Only these items of a source.

    Raises:
        ValueError: no part of it, or it cannot be divided.
    """
    if not isinstance(source, Divisible):
        raise ValueError(f"{source.name} cannot be divided into parts: it has no method within(items)")
    return source.within(items)


def aligned(source: Source, batch_size: int) -> Iterator[Batch]:
    """The batches of a source, cut where the number of an item is a multiple of ``batch_size``.

    So an item that fails, or that belongs to another part, never moves the others to another batch; rounding depends
    on the size of a batch. Without failures these are the batches of the source itself.
    """
    waiting: list[Batch] = []
    block, count = -1, 0
    for batch in source.batches(batch_size):
        for number, rows in groupby(range(len(batch.items)), key=lambda row: batch.items[row] // batch_size):
            places = list(rows)
            start, stop = places[0], places[-1] + 1
            if number != block and waiting:
                yield _joined(waiting)
                waiting, count = [], 0
            block = number
            while start < stop:
                piece = _rows(batch, start, min(stop, start + batch_size - count))
                waiting.append(piece)
                start, count = start + len(piece.items), count + len(piece.items)
                if count == batch_size:
                    yield _joined(waiting)
                    waiting, count = [], 0
    if waiting:
        yield _joined(waiting)


def _rows(batch: Batch, start: int, stop: int) -> Batch:
    if (start, stop) == (0, len(batch.items)):
        return batch
    labels = {name: values[start:stop] for name, values in batch.labels.items()}
    return Batch(batch.clips[start:stop], batch.items[start:stop], labels, batch.names[start:stop])


def _joined(pieces: list[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    labels = {name: torch.cat([piece.labels[name] for piece in pieces]) for name in pieces[0].labels}
    items = [item for piece in pieces for item in piece.items]
    return Batch(torch.cat([piece.clips for piece in pieces]), items, labels, [n for p in pieces for n in p.names])
