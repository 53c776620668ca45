"""Reductions: small operators from N tokens to M tokens that can be applied, traced and undone.

A method decides; a reduction carries the decision and moves features, masses and provenance alike.
Notation: B batch, N tokens before, M tokens after (prefix included in both), C width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokred.precision import full_precision, wide
from tokred.schedule import ScheduleError
from tokred.tokens import Grid, Tokens

Fill = float | None
TINY = torch.finfo(torch.float32).tiny


def take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, N, C) at index (B, M): (B, M, C). One row copy per token, differentiable."""
    b, n, c = x.shape
    if b == 1:
        return x[0].index_select(0, index[0])[None]
    offset = torch.arange(b, device=index.device).mul_(n)[:, None]
    return x.reshape(b * n, c).index_select(0, (index + offset).reshape(-1)).reshape(b, index.shape[1], c)


def scatter_sum(x: Tensor, assign: Tensor, n_out: int) -> Tensor:
    """Sum rows of x (B, N, C) into assign (B, N) of n_out places: (B, M, C), summed in float32 or wider."""
    b, n, c = x.shape
    rows = wide(x).reshape(b * n, c)
    offset = torch.arange(b, device=assign.device).mul_(n_out)[:, None]
    return rows.new_zeros(b * n_out, c).index_add(0, (assign + offset).reshape(-1), rows).reshape(b, n_out, c)


class Reduction(ABC):
    """A decided step from ``n_in`` to ``n_out`` tokens, prefix included.

    ``groups`` is the number of equal temporal groups of the patch tokens after the step, None when there are none.
    ``in_position`` tells whether the patch tokens come out in the order they went in.
    ``grid`` is the smaller grid that the tokens of a whole grid fill after the step, in raster order, where there is
    one: a host that computes on grids then runs on that one, and does not fill up what is gone.
    """

    n_in: int
    n_out: int
    groups: int | None
    grid: Grid | None = None
    sets_aside: bool = False
    brings_back: bool = False

    @property
    def linear(self) -> bool:
        """Whether ``apply`` is linear in the features."""
        return True

    @property
    def chosen(self) -> Tensor | None:
        """(B, M) the input token that each output token is, where the outputs are a subset of the inputs."""
        return None

    @abstractmethod
    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        """Features after the step.

        Args:
            x: (B, N, C); size: masses (B, N) in patches, None = all one.
        Returns:
            (B, M, C) in the dtype of x.
        """

    @abstractmethod
    def masses(self, size: Tensor | None) -> Tensor | None:
        """Masses after the step, (B, M) float32, or None while every mass is one."""

    @abstractmethod
    def positions(self) -> Tensor:
        """Where each input token went: (B, N) int64, -1 = dropped."""

    @abstractmethod
    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        """Features put back on the input's places: (B, M, C) -> (B, N, C).

        Args:
            y: features after the step.
            fill: value for dropped places; None copies the nearest kept token of the sequence.
        """


@dataclass(frozen=True)
class Keep(Reduction):
    """Keep a subset: gather.

    Args:
        index: (B, M) int64, position of each output token in the input, each at most once.
        n_in: tokens before the step.
        groups: equal temporal groups after the step, if there are any.
        grid: the smaller grid that they fill, if they do.
    """

    index: Tensor
    n_in: int
    groups: int | None = None
    grid: Grid | None = None

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.index.shape[1]

    @property
    def chosen(self) -> Tensor:
        return self.index

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        return take(x, self.index)

    def masses(self, size: Tensor | None) -> Tensor | None:
        return None if size is None else size.gather(1, self.index)

    def positions(self) -> Tensor:
        out = self.index.new_full((self.index.shape[0], self.n_in), -1)
        places = torch.arange(self.n_out, device=self.index.device).expand_as(self.index)
        return out.scatter(1, self.index, places)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        if fill is None:
            return take(y, _nearest(self.index, self.n_in))
        out = y.new_full((y.shape[0], self.n_in, y.shape[2]), fill)
        return out.scatter(1, self.index[..., None].expand_as(y), y)


@dataclass(frozen=True)
class Merge(Reduction):
    """Merge a partition: every input token goes to one output token.

    Args:
        assign: (B, N) int64, output position of each input token; every output position occurs.
        n_out: tokens after the step.
        mode: "mass" = mean weighted by mass, "mean" = plain mean, "sum", "amax".
        weight: (B, N) factor on each token's mass, for "mass" alone (vid-TLDR); None = 1. Mass is conserved without it.
    """

    assign: Tensor
    n_out: int
    mode: str = "mass"
    weight: Tensor | None = None
    groups: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("mass", "mean", "sum", "amax"):
            raise ValueError(f"mode = {self.mode!r} is not one of mass, mean, sum, amax")
        if self.weight is not None and self.mode != "mass":
            raise ValueError(f"weight scales masses, which mode = {self.mode!r} does not read: allowed is mass")

    @property
    def linear(self) -> bool:
        return self.mode != "amax"

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.assign.shape[1]

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        if self.mode == "amax":
            index = self.assign[..., None].expand_as(x)
            out = x.new_full((x.shape[0], self.n_out, x.shape[2]), float("-inf"))
            return out.scatter_reduce(1, index, x, "amax")
        if self.mode == "sum":
            return scatter_sum(x, self.assign, self.n_out).to(x.dtype)
        weights = self._weights(size) if self.mode == "mass" else None
        if weights is None:
            total = self._total(None, x)
            return (scatter_sum(x, self.assign, self.n_out) / total[..., None]).to(x.dtype)
        weights = weights.to(torch.promote_types(weights.dtype, x.dtype))
        # Weights of zero are allowed, and may meet in one place: it becomes zero instead of 0 / 0.
        total = self._total(weights, x).clamp_min(TINY)
        # Shares before the product: that of a token alone is exactly one, so it passes bit for bit.
        share = weights / total.gather(1, self.assign)
        return scatter_sum(x * share[..., None], self.assign, self.n_out).to(x.dtype)

    def masses(self, size: Tensor | None) -> Tensor | None:
        weights = self._weights(size)
        return self._total(weights, self.assign)

    def positions(self) -> Tensor:
        return self.assign

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return take(y, self.assign)

    def _weights(self, size: Tensor | None) -> Tensor | None:
        if self.weight is None or size is None:
            return size if self.weight is None else self.weight
        return size * self.weight

    def _total(self, weights: Tensor | None, like: Tensor) -> Tensor:
        if weights is None:
            weights = torch.ones(self.assign.shape, dtype=torch.float32, device=like.device)
        out = weights.new_zeros(self.assign.shape[0], self.n_out)
        return out.scatter_add(1, self.assign, weights)


@dataclass(frozen=True)
class Fuse(Reduction):
    """Keep a subset and add one token, at the end, that stands for the rest.

    Args:
        index: (B, K) int64, kept positions.
        weights: (B, N) weight of each token in the fused one, zero where kept. The fused token is their raw
            weighted sum: EViT's weights are attention and total less than one.
    """

    index: Tensor
    weights: Tensor
    groups: int | None = None

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.weights.shape[1]

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.index.shape[1] + 1

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        with full_precision(x):
            fused = self.weights.to(x.dtype)[:, None] @ x
        return torch.cat([take(x, self.index), fused], dim=1)

    def masses(self, size: Tensor | None) -> Tensor | None:
        mass = torch.ones_like(self.weights, dtype=torch.float32) if size is None else size
        kept = mass.gather(1, self.index)
        return torch.cat([kept, (mass.sum(1) - kept.sum(1))[:, None]], dim=1)

    def positions(self) -> Tensor:
        out = self.index.new_full(self.weights.shape, self.n_out - 1)
        places = torch.arange(self.index.shape[1], device=self.index.device).expand_as(self.index)
        return out.scatter(1, self.index, places)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return take(y, self.positions())


@dataclass(frozen=True)
class Mix(Reduction):
    """A soft assignment: output = matrix @ input.

    Args:
        matrix: (B, M, N) weights of the inputs in each output.
        back: (B, N, M) weights used by ``restore``; None = the transposed matrix with rows scaled to one.
    """

    matrix: Tensor
    back: Tensor | None = None
    groups: int | None = None

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.matrix.shape[2]

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.matrix.shape[1]

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        with full_precision(x):
            return self.matrix.to(x.dtype) @ x

    def masses(self, size: Tensor | None) -> Tensor | None:
        matrix = wide(self.matrix)
        share = matrix / matrix.sum(1, keepdim=True).clamp_min(TINY)
        mass = share.new_ones(share.shape[0], self.n_in) if size is None else size.to(share.dtype)
        with full_precision(share):
            return (share @ mass[..., None])[..., 0].float()

    def positions(self) -> Tensor:
        return self.matrix.argmax(dim=1)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        back = self.back
        if back is None:
            back = wide(self.matrix).transpose(1, 2)
            back = back / back.sum(-1, keepdim=True).clamp_min(TINY)
        with full_precision(y):
            return back.to(y.dtype) @ y


@dataclass(frozen=True)
class Mask(Reduction):
    """Mask tokens without removing them: attention and pooling do not see them any more, gradients reach the decision.

    For training; the host's attention is computed in full. A token always sees itself.

    Args:
        policy: (B, N), 1 = seen, 0 = masked, prefix tokens included; it replaces an earlier mask.
        groups: equal temporal groups, which stay.
    """

    policy: Tensor
    groups: int | None = None

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.policy.shape[1]

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.policy.shape[1]

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        return x

    def masses(self, size: Tensor | None) -> Tensor | None:
        return size

    def positions(self) -> Tensor:
        return torch.arange(self.n_in, device=self.policy.device).expand(self.policy.shape)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return y


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
    if reduction.brings_back:
        if tokens.aside is None:
            raise ValueError("the reduction brings tokens back, and none were set aside")
        return tokens.aside.with_x(reduction.apply(tokens.x, tokens.size))
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
    )


def _nearest(index: Tensor, n: int) -> Tensor:
    """For each of n places, which column of index (B, M) is nearest in the sequence; ties go to the earlier one."""
    ordered, column = index.sort(dim=1)
    places = torch.arange(n, device=index.device).expand(index.shape[0], n).contiguous()
    right = torch.searchsorted(ordered, places).clamp_max(index.shape[1] - 1)
    left = (right - 1).clamp_min(0)
    nearer_left = (places - ordered.gather(1, left)).abs() <= (ordered.gather(1, right) - places).abs()
    return column.gather(1, torch.where(nearer_left, left, right))
