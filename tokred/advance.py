"""Carry reductions out: features, masses, provenance and places moved together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tokred.light import Light
from tokred.reduction import Mask, Mix, Reduction
from tokred.schedule import ScheduleError
from tokred.tokens import Tokens

Move = tuple[Reduction, Tensor | None]
"""A reduction and the masses (B, N) before it, None = all one."""


def follow(x: Tensor, moves: Sequence[Move]) -> Tensor:
    """Features (B, N, C) of the tokens before some reductions, taken through them: (B, M, C)."""
    for reduction, size in moves:
        x = reduction.apply(x, size)
    return x


def advance(tokens: Tokens, reduction: Reduction) -> Tokens:
    """The tokens after a reduction: features, masses, provenance and temporal groups moved together.

    Raises:
        ValueError: the reduction was made for another number of tokens.
        ScheduleError: a soft assignment on a host that computes on whole grids.
    """
    if reduction.n_in != tokens.count:
        raise ValueError(f"the reduction was made for {reduction.n_in} tokens, there are {tokens.count}")
    if isinstance(reduction, Light):
        return replace(tokens, light=reduction)
    if reduction.brings_back:
        if tokens.aside is None:
            raise ValueError("the reduction brings tokens back, and none were set aside")
        return replace(tokens.aside, x=reduction.apply(tokens.x, tokens.size), groups=reduction.groups)
    source = tokens.source
    if source is not None:
        # One extra place holds -1, so that dropped patches stay dropped.
        places = torch.nn.functional.pad(reduction.positions(), (0, 1), value=-1)
        source = places.gather(1, torch.where(source < 0, tokens.count, source))
    cover = tokens.cover
    if cover is not None:
        if isinstance(reduction, Mask):
            raise ScheduleError(
                "masked training needs attention of all tokens with all tokens: this backbone has windows"
            )
        if isinstance(reduction, Mix):
            raise ScheduleError(
                "a soft assignment (Mix) has no places on a grid, which this backbone's windows need: allowed are "
                "reductions that say where each token went (Keep, Merge, Fuse)"
            )
        if reduction.grid is None:
            cover = cover.moved(reduction.positions(), reduction.chosen)
        else:
            cover = cover.cut(reduction.grid, source)
    policy = tokens.policy
    if isinstance(reduction, Mask):
        policy = reduction.policy
    elif policy is not None:
        policy = reduction.apply(policy[..., None], tokens.size)[..., 0]
    return replace(
        tokens,
        x=reduction.apply(tokens.x, tokens.size),
        grid=tokens.grid if cover is None else cover.grid,
        size=reduction.masses(tokens.size),
        groups=reduction.groups,
        source=source,
        cover=cover,
        policy=policy,
        aside=tokens if reduction.sets_aside else tokens.aside,
        light=None if tokens.light is None else replace(tokens.light, moved=True),
    )
