"""Reducers that show whether a host is read rightly: one that only looks, and one that undoes a duplication."""

from __future__ import annotations

import pytest
import torch

from tokred import Capabilities, Merge, Probe, Reduction, Schedule, Site, TokenReducer, Tokens


class Watch(TokenReducer):
    """Takes every block apart and leaves every token."""

    site = "after_attention"
    capabilities = Capabilities(needs=frozenset({"query", "key", "value"}), keeps_frames=True)

    def __init__(self) -> None:
        super().__init__(Schedule(at="all", drop=1))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


class MergePairs(TokenReducer):
    """Merges every two neighbouring patch tokens before block 0, and weighs them by mass from there on.

    Where neighbours are equal, proportional attention and pooling by mass give the unreduced model's logits.
    """

    site = "before_block"
    capabilities = Capabilities()
    proportional = True
    pool = "mass"

    def __init__(self) -> None:
        super().__init__(Schedule(at=(0,), keep=0.5))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        places = torch.arange(tokens.count, device=tokens.x.device)
        assign = torch.where(places < tokens.prefix, places, tokens.prefix + (places - tokens.prefix) // 2)
        return Merge(assign.expand(tokens.x.shape[0], -1), int(assign.max()) + 1)


@pytest.fixture
def watch() -> TokenReducer:
    return Watch()


@pytest.fixture
def merge_pairs() -> TokenReducer:
    return MergePairs()
