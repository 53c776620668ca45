"""What a step makes of features: a merged token is the mean of what it stands for, and equal tokens stay equal."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.precision import wide
from tokred.reduction import TINY, Fuse, Keep, Merge, Mix, Reduction
from tokred.testing.case import Case, Seen, difference
from tokred.testing.check import check
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.trial import Trial

ROUNDING = 1e-4
"""Relative to the largest feature: sums in float32 over a few hundred tokens round by less."""


@check("a step's values are what its reduction says: merged tokens are means by mass, and equal tokens stay equal")
def check_values(case: Case) -> None:
    steps = [(f"the step at block {s.site.block}", s, s.reduction) for s in case.watch() if s.reduction is not None]
    if not steps:
        raise NotApplicable("it takes no step on tokens")
    for where, step, reduction in steps:
        _expect_values(where, step, reduction)


@check_values.on_drawn
def _values_drawn(trial: Trial) -> None:
    for where, step, reduction in trial.reduced:
        _expect_values(where, step, reduction)


def other_masses(like: Tensor, prefix: int) -> Tensor:
    """Masses between one and five patches for tokens (B, N, C), prefix tokens one: what earlier merges may leave."""
    b, n, _ = like.shape
    size = torch.randint(1, 6, (b, n), generator=torch.Generator().manual_seed(1)).float()
    size[:, :prefix] = 1
    return size


def _expect_values(where: str, step: Seen, reduction: Reduction) -> None:
    """On random features, and with masses that earlier merges may have left: a reduction is an operator for any."""
    x = torch.randn(step.before.x.shape, generator=torch.Generator().manual_seed(0))
    mixed = other_masses(x, step.before.prefix)
    for size in (None, mixed):
        found = reduction.apply(x, size)
        expected = _reference(reduction, x, size)
        if expected is not None:
            weighed = "" if size is None else " where tokens before it stand for different numbers of patches"
            expect(
                difference(found, expected[0]) <= ROUNDING,
                f"{expected[1]} after {where}{weighed}",
                f"a difference of {difference(found, expected[0]):.2g}",
            )
        if reduction.linear and not isinstance(reduction, Fuse):
            _expect_equal(where, reduction, x, size)


def _expect_equal(where: str, reduction: Reduction, x: Tensor, size: Tensor | None) -> None:
    """A linear step on tokens that are all the same: averages of any weights leave them alone, sums do not."""
    same = x[:, :1].expand_as(x).contiguous()
    found = reduction.apply(same, size)
    kept = torch.ones(found.shape[:2], dtype=torch.bool)
    if isinstance(reduction, Merge) and reduction.weight is not None:
        # What weighs nothing together becomes zero: there is no mean of it.
        kept = _shares(reduction, x, size)[1] > TINY
    gap = difference(found * kept[..., None], same[:, :1] * kept[..., None])
    expect(
        gap <= ROUNDING,
        f"equal tokens to stay what they are after {where}: the weights that make a token add up to one",
        f"a difference of {gap:.2g}",
    )


def _reference(reduction: Reduction, x: Tensor, size: Tensor | None) -> tuple[Tensor, str] | None:
    """The values after the step as its kind defines them, and what they are; None where layers compute them."""
    wide_x = x.double()
    if isinstance(reduction, Keep):
        index = reduction.index[..., None].expand(-1, -1, x.shape[2])
        return wide_x.gather(1, index), "kept tokens as they were"
    if isinstance(reduction, Fuse):
        index = reduction.index[..., None].expand(-1, -1, x.shape[2])
        fused = reduction.weights.double()[:, None] @ wide_x
        return torch.cat([wide_x.gather(1, index), fused], dim=1), "kept tokens, and the rest added up by its weights"
    if isinstance(reduction, Mix):
        return reduction.matrix.double() @ wide_x, "the inputs mixed by the matrix"
    if isinstance(reduction, Merge) and reduction.mode != "amax":
        share, _ = _shares(reduction, x, size)
        assign = reduction.positions()[..., None].expand_as(x)
        merged = wide_x.new_zeros(x.shape[0], reduction.n_out, x.shape[2])
        by = "mass" if reduction.weight is None else "mass and weight"
        return merged.scatter_add(1, assign, share[..., None] * wide_x), f"means by {by} of what was merged"
    return None


def _shares(reduction: Merge, x: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor]:
    """The share (B, N) of each token in the one that it merged into, and the total weights (B, M); float64."""
    assign = reduction.positions()
    weights = x.new_ones(x.shape[:2], dtype=torch.float64) if size is None else size.double()
    if reduction.weight is not None:
        weights = weights * wide(reduction.weight).double()
    total = weights.new_zeros(x.shape[0], reduction.n_out).scatter_add(1, assign, weights)
    return weights / total.gather(1, assign).clamp_min(TINY), total
