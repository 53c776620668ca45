"""Reducers that show whether a host is read rightly: one that only looks, and one that undoes a duplication."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tokred import Capabilities, Merge, Probe, Reduction, Schedule, Site, TokenReducer, Tokens

# The slow VideoSwin, written a second time for the golden files, is a reference here too.
REFERENCES = str(Path(__file__).parents[1] / "parity")
if REFERENCES not in sys.path:
    sys.path.insert(0, REFERENCES)


class Watch(TokenReducer):
    """Takes every block apart and leaves every token."""

    site = "after_attention"
    capabilities = Capabilities(needs=frozenset({"query", "key", "value"}), keeps_frames=True)

    def __init__(self) -> None:
        super().__init__(Schedule(at="all", drop=1))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


class MergePairs(TokenReducer):
    """Merges every two neighbours in the first half of the patch tokens before block 0, and weighs by mass after it.

    Where neighbours are equal, proportional attention and pooling by mass give the unreduced model's logits. Half of
    the tokens stay single, because equal masses everywhere would cancel.
    """

    site = "before_block"
    capabilities = Capabilities()
    proportional = True
    pool = "mass"

    def __init__(self) -> None:
        super().__init__(Schedule(at=(0,), keep=0.75))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        half = tokens.patch_count // 2
        patches = torch.arange(tokens.patch_count, device=tokens.x.device)
        patches = torch.where(patches < half, patches // 2, patches - half // 2)
        assign = torch.cat([patches.new_tensor(range(tokens.prefix)), patches + tokens.prefix])
        return Merge(assign.expand(tokens.x.shape[0], -1), tokens.count - half // 2)


@pytest.fixture
def watch() -> TokenReducer:
    return Watch()


@pytest.fixture
def merge_pairs() -> TokenReducer:
    return MergePairs()
