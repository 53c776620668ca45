"""Clips prepared once and read many times."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tokred.data.source import Batch, Failure, LabelSet, Source

GIB = 1 << 30


@runtime_checkable
class PixelSource(Source, Protocol):
    """A source that can give its clips as uint8, before normalisation: a quarter of the space, and nothing is lost."""

    def pixel_batches(self, batch_size: int) -> Iterator[Batch]:
        """Like ``batches``, clips uint8."""
        ...

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, T, H, W) uint8 to the float32 clips of ``batches``."""
        ...


class MaterialisedSource:
    """The clips of another source, kept in memory, and on disk where they take too much of it.

    Gives bit for bit the clips of the source. Made by `materialise`. The file is deleted when this object is closed
    or forgotten, and when the process ends.
    """

    def __init__(self, source: Source, max_bytes: int) -> None:
        self.name: str = source.name
        self.label_sets: tuple[LabelSet, ...] = source.label_sets
        self.failures: list[Failure] = source.failures
        self.notes: list[str] = source.notes
        self._source = source
        self._max_bytes = max(1, max_bytes)  # 0 would mean no limit below
        self._store = tempfile.SpooledTemporaryFile(max_size=self._max_bytes, prefix="tokred-clips-")  # noqa: SIM115
        self._shape: torch.Size | None = None
        self._dtype = torch.float32
        self._items: list[int] = []
        self._names: list[str] = []
        self._labels: dict[str, list[int]] = {label_set.name: [] for label_set in source.label_sets}

    def __len__(self) -> int:
        """Number of items, unusable ones included."""
        return len(self._source)

    def digest(self) -> str:
        """The digest of the source."""
        return self._source.digest()

    @property
    def rows(self) -> int:
        """Number of stored clips, over all items and views."""
        return len(self._items)

    def name_of(self, item: int) -> str:
        """What an item is called in reports: its path where it has one."""
        row = self._items.index(item)
        return self._names[row] if row < len(self._names) and self._names[row] else f"item {item}"

    @property
    def nbytes(self) -> int:
        """Bytes of the stored clips."""
        return self.rows * self._row_bytes

    @property
    def on_disk(self) -> bool:
        """Whether the clips took more than the given memory."""
        return self.nbytes > self._max_bytes

    @property
    def _row_bytes(self) -> int:
        return 0 if self._shape is None else math.prod(self._shape) * self._dtype.itemsize

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The clips in the order of the source; any batch size."""
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        for start in range(0, self.rows, batch_size):
            stop = min(start + batch_size, self.rows)
            self._store.seek(start * self._row_bytes)
            data = bytearray(self._store.read((stop - start) * self._row_bytes))
            clips = torch.frombuffer(data, dtype=self._dtype).view(stop - start, *(self._shape or ()))
            if isinstance(self._source, PixelSource):
                clips = self._source.normalise(clips)
            labels = {name: torch.tensor(values[start:stop]) for name, values in self._labels.items() if values}
            yield Batch(clips, self._items[start:stop], labels, self._names[start:stop])

    def close(self) -> None:
        """Free the memory or delete the file."""
        self._store.close()

    def _append(self, batch: Batch) -> None:
        if self._shape is None:
            self._shape, self._dtype = batch.clips.shape[1:], batch.clips.dtype
        if batch.clips.shape[1:] != self._shape or batch.clips.dtype != self._dtype:
            this, first = (batch.clips.shape[1:], batch.clips.dtype), (self._shape, self._dtype)
            raise ValueError(f"clips of {tuple(this[0])} {this[1]} after clips of {tuple(first[0])} {first[1]}")
        self._store.write(batch.clips.contiguous().numpy().tobytes())
        self._items += batch.items
        self._names += batch.names
        for name, values in batch.labels.items():
            self._labels[name] += values.tolist()


def materialise(
    source: Source,
    max_bytes: int = GIB,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> MaterialisedSource:
    """Prepare all clips of a source once, so that many models can be measured on exactly the same ones.

    Args:
        source: any source; one with ``pixel_batches`` takes a quarter of the space.
        max_bytes: memory for the clips; what takes more goes to a temporary file.
        batch_size: clips prepared at a time.
        progress: called with (items done, items in all) after each batch and at the end.

    Returns:
        A source with the same clips, failures, notes and digest.
    """
    kept = MaterialisedSource(source, max_bytes)
    try:
        batches = source.pixel_batches if isinstance(source, PixelSource) else source.batches
        for batch in batches(batch_size):
            kept._append(batch)
            if progress is not None:
                progress(batch.items[-1], len(source))
        if progress is not None:
            progress(len(source), len(source))
    except BaseException:
        kept.close()
        raise
    return kept
