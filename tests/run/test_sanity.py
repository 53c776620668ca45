"""Taking time away from clips."""

from __future__ import annotations

import torch
from torch import nn

from tokred.data.synthetic import SyntheticActions
from tokred.run.sanity import accuracies, changes


class _Constant(nn.Module):
    """Always answers the same class of each label set."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(18)[3] + torch.eye(18)[12])
        self.seen: list[torch.Tensor] = []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.seen.append(clips.clone())
        return self.logits.expand(len(clips), 18)


def test_sanity_checks_take_time_away() -> None:
    source = SyntheticActions(80)
    found = accuracies(_Constant(), source, 2)
    assert all(values == {"appearance": 0.1, "motion": 0.125} for values in found.values())
    batch = next(source.batches(3))
    seen = {name: change(batch.clips, batch) for name, change in changes(2).items()}
    assert torch.equal(seen["intact"], batch.clips)
    assert torch.equal(seen["reversed"][:, :, 0], batch.clips[:, :, -1])
    assert torch.equal(seen["frozen"][:, :, 9], batch.clips[:, :, 0])
    assert torch.equal(seen["single_tubelet"][:, :, 2:4], batch.clips[:, :, 8:10])
    pairs = batch.clips.reshape(3, 3, 8, 2, 64, 64)
    mixed = seen["shuffled"].reshape(3, 3, 8, 2, 64, 64)
    for clip in range(3):
        order = [next(j for j in range(8) if torch.equal(mixed[clip, :, i], pairs[clip, :, j])) for i in range(8)]
        assert sorted(order) == list(range(8))
        assert order != list(range(8))
