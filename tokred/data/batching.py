"""From items with any number of views to batches of equal size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from torch import Tensor

from tokred.data.source import Batch
from tokred.data.views import Views


class ViewBatches(ABC):
    """What sources of real pictures and videos share: their views, in order, so many at a time."""

    views: Views
    only: range | None = None
    """Of a part: its items, among ``total``."""

    @property
    @abstractmethod
    def total(self) -> int:
        """Number of items of the whole set, unusable ones included."""

    @property
    def items(self) -> range:
        """The numbers of the items."""
        return range(self.total) if self.only is None else self.only

    def __len__(self) -> int:
        """Number of items, unusable ones included."""
        return len(self.items)

    @abstractmethod
    def item(self, index: int) -> list[Tensor]:
        """The views (3, T, H, W) uint8 of one item; none if it failed, now or before."""

    @abstractmethod
    def _batch(self, rows: list[tuple[int, Tensor]]) -> Batch:
        """Views with the index of their item, as one batch."""

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All views in the order of the items, ``batch_size`` at a time; the views of an item may be split."""
        for batch in self.pixel_batches(batch_size):
            yield Batch(self.normalise(batch.clips), batch.items, batch.labels, batch.names)

    def normalise(self, pixels: Tensor) -> Tensor:
        """(B, 3, T, H, W) uint8 pixels to what the model takes, float32."""
        return self.views.normalise(pixels)

    def pixel_batches(self, batch_size: int) -> Iterator[Batch]:
        """Like `batches`, with uint8 pixels that are not normalised yet: a quarter of the memory."""
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        waiting: list[tuple[int, Tensor]] = []
        for index in self.items:
            waiting += [(index, view) for view in self.item(index)]
            while len(waiting) >= batch_size:
                yield self._batch(waiting[:batch_size])
                del waiting[:batch_size]
        if waiting:
            yield self._batch(waiting)
