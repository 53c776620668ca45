"""Some items of clips in memory."""

from __future__ import annotations

import torch

from tokred.data.cache import materialise
from tokred.data.subset import Subset
from tokred.data.synthetic import SyntheticActions


def test_a_subset_gives_the_rows_of_its_items_in_order() -> None:
    whole = materialise(SyntheticActions(clips=7, seed=0, size=32, frames=8))
    every = next(iter(whole.batches(7)))
    some = Subset(whole, [5, 1, 2])
    parts = list(some.batches(2))
    assert [part.items for part in parts] == [[1, 2], [5]]
    assert torch.equal(torch.cat([part.clips for part in parts]), every.clips[[1, 2, 5]])
    assert torch.equal(torch.cat([p.labels["motion"] for p in parts]), every.labels["motion"][[1, 2, 5]])
    assert len(some) == 3
    assert some.digest() != Subset(whole, [1, 2]).digest()
