"""A method from another package: keeps every second token."""

from __future__ import annotations

import torch

import tokred


class Alternate(tokred.TokenReducer):
    """Keep every second token.

    Args:
        block: 0-based block after which it acts.
    """

    def __init__(self, block: int = 0) -> None:
        super().__init__(tokred.Schedule(at=(block,), keep=0.5))

    def reduce(self, tokens: tokred.Tokens, probe: tokred.Probe, site: tokred.Site) -> tokred.Reduction:
        patches = tokens.count - tokens.prefix
        every_second = torch.arange(0, patches, 2, device=tokens.x.device)[: site.left(patches)]
        return tokred.keep_patches(tokens, every_second.expand(tokens.x.shape[0], -1))
