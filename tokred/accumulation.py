"""Temporal accumulation: which tokens of each frame carry what earlier frames do not (STA, arXiv 2308.04549).

The selection of STA by itself, on features and keys in temporal groups; ``tokred.methods.sta`` says where and how much.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tokred.matching import best_match, unit
from tokred.precision import full_precision
from tokred.ranking import ranking
from tokred.saliency import activation_map


class Selection(NamedTuple):
    """Kept tokens of one stage.

    Args:
        kept: (B, T * (g - r)) positions in the input, groups in temporal order, score order inside.
        score: (B, T - 1, g) score of the processed groups 1..T-1 in processing order, small = kept.
        first_similarity: (B, ceil(g / 2)) best cosine of each even token of the first processed group.
    """

    kept: Tensor
    score: Tensor
    first_similarity: Tensor


Choose = Callable[[Tensor, int], Tensor]
"""(B, g) scores, small = kept, and how many stay -> (B, kept) positions."""


def lowest(score: Tensor, count: int) -> Tensor:
    """Positions of the lowest scores in rising order, ties to the earlier: (B, g) -> (B, count)."""
    return ranking(score, 1)[:, :count]


@torch.no_grad()
def select(
    x: Tensor,
    metric: Tensor,
    groups: int,
    r: int,
    *,
    backward: bool = False,
    score: str = "both",
    first_order: Tensor | None = None,
    choose: Choose = lowest,
) -> Selection:
    """One stage of STA (section 3.2, algorithm 1, as the official code runs it).

    Args:
        x: (B, T * g, D) features, group-major; metric: (B, T * g, d) similarity features.
        groups: number of temporal groups T; r: tokens dropped per group, 0 <= r < g.
        backward: process the groups last to first.
        score: "both" = accumulated * (1 - activation) (eq. 5), or only one of the two.
        first_order: (B, g) order of the first processed group, of which the last r are dropped; default: odd
            positions, then even ones by rising similarity to their closest odd one (ToMe's bipartite rule).
        choose: which tokens of a group stay, given their scores (small = kept) and how many stay.
    """
    with full_precision(x):
        return _select(x, metric, groups, r, backward, score, first_order, choose)


def _select(
    x: Tensor,
    metric: Tensor,
    groups: int,
    r: int,
    backward: bool,
    score: str,
    first_order: Tensor | None,
    choose: Choose,
) -> Selection:
    b, n, width = x.shape
    g = n // groups
    keys = unit(metric).reshape(b, groups, g, metric.shape[-1])
    features = x.reshape(b, groups, g, width)
    if backward:
        keys, features = keys.flip(1), features.flip(1)
    similarity, _ = best_match(keys[:, 0, ::2], keys[:, 0, 1::2]) if g > 1 else (keys.new_zeros(b, g), None)
    if first_order is None:
        odd = torch.arange(1, g, 2, device=x.device).expand(b, g // 2)
        even = 2 * ranking(similarity, 1)
        first_order = torch.cat([odd, even], dim=1)
    if choose is not lowest:
        ranks = torch.arange(first_order.shape[1], device=x.device).expand_as(first_order)
        first_order = choose(ranks.new_full((b, g), g).scatter(1, first_order, ranks), g - r)
    local = [first_order[:, : g - r]]
    scores: list[Tensor] = []
    if groups > 1:
        damping = 1 - activation_map(features[:, 1:])  # (B, T-1, g)
        mass = keys.new_ones(b, g)
        for j in range(groups - 1):
            # Every source's distribution over the current group; dropped sources have mass zero. One transition at a
            # time stays in the cache: all of them together are tens of megabytes on large frames.
            flow = (keys[:, j] @ keys[:, j + 1].transpose(-1, -2)).softmax(dim=-1)  # (B, source, current)
            accumulated = (mass[:, None] @ flow)[:, 0]
            z = {"both": accumulated * damping[:, j], "activation": damping[:, j], "accumulation": accumulated}[score]
            kept = choose(z, g - r)
            survivors = torch.zeros_like(accumulated).scatter_(1, kept, accumulated.gather(1, kept))
            mass = survivors / survivors.sum(dim=1, keepdim=True)
            local.append(kept)
            scores.append(z)
    chosen = torch.stack(local, dim=1)  # (B, T, g - r), processing order
    if backward:
        chosen = chosen.flip(1)
    start = torch.arange(groups, device=x.device).mul_(g)[:, None]
    return Selection(
        (chosen + start).flatten(1),
        torch.stack(scores, dim=1) if scores else similarity.new_zeros(b, 0, g),
        similarity,
    )
