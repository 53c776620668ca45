"""Views of items in batches of equal size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokred.data.batching import ViewBatches
from tokred.data.source import Batch
from tokred.data.views import Views


class Items(ViewBatches):
    """Item i has as many views as its number says, all of value i."""

    def __init__(self, views: list[int]) -> None:
        self.counts = views
        self.views = Views((2, 2), (0.5,) * 3, (0.25,) * 3)

    @property
    def total(self) -> int:
        return len(self.counts)

    def item(self, index: int) -> list[Tensor]:
        return [torch.full((3, 1, 2, 2), index, dtype=torch.uint8)] * self.counts[index]

    def _batch(self, rows: list[tuple[int, Tensor]]) -> Batch:
        items = [index for index, _ in rows]
        return Batch(torch.stack([view for _, view in rows]), items, {}, [str(index) for index in items])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_every_view_comes_once_in_order_and_only_the_last_batch_is_smaller(size: int) -> None:
    source = Items([2, 0, 3, 1, 0])
    batches = list(source.pixel_batches(size))
    assert [index for batch in batches for index in batch.items] == [0, 0, 2, 2, 2, 3]
    assert [len(batch.items) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert [int(value) for batch in batches for value in batch.clips[:, 0, 0, 0, 0]] == [0, 0, 2, 2, 2, 3]


def test_batches_are_normalised_pixels() -> None:
    source = Items([1, 2])
    for pixels, batch in zip(source.pixel_batches(2), source.batches(2), strict=True):
        torch.testing.assert_close(batch.clips, (pixels.clips / 255 - 0.5) / 0.25)
        assert (batch.items, batch.names) == (pixels.items, pixels.names)


def test_no_items_give_no_batches_and_no_size_is_refused() -> None:
    assert list(Items([0, 0]).batches(3)) == []
    with pytest.raises(ValueError, match="batch_size = 0 must be at least 1"):
        next(Items([1]).batches(0))
