"""Some items of clips that are in memory already: for tuning on some and testing on others."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch

from tokred.data.cache import MaterialisedSource
from tokred.data.source import Batch, Failure, LabelSet


class Subset:
    """The rows of a source that belong to some of its items.

    Args:
        source: clips in memory, closed by its owner; items: those that are wanted.
    """

    def __init__(self, source: MaterialisedSource, items: Collection[int]) -> None:
        self._source, self._items = source, frozenset(items)
        self.name: str = source.name
        self.label_sets: tuple[LabelSet, ...] = source.label_sets
        self.failures: list[Failure] = source.failures
        self.notes: list[str] = source.notes

    def __len__(self) -> int:
        """Number of items."""
        return len(self._items)

    def digest(self) -> str:
        """The digest of the whole source and the items."""
        return f"{self._source.digest()}:{sorted(self._items)}"

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The chosen rows in the order of the source, ``batch_size`` at a time."""
        waiting: list[Batch] = []
        for batch in self._source.batches(1):
            if batch.items[0] in self._items:
                waiting.append(batch)
            if len(waiting) == batch_size:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)


def _joined(rows: list[Batch]) -> Batch:
    labels = {name: torch.cat([row.labels[name] for row in rows]) for name in rows[0].labels}
    items, names = [row.items[0] for row in rows], [name for row in rows for name in row.names]
    return Batch(torch.cat([row.clips for row in rows]), items, labels, names)
