"""Reductions: small operators from N tokens to M tokens that can be applied, traced and undone.

A method decides; a reduction carries the decision and moves features, masses and provenance alike.
Notation: B batch, N tokens before, M tokens after (prefix included in both), C width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.gather import nearest_in_sequence, scatter_sum, take
from tokred.precision import full_precision, wide
from tokred.tokens import Grid

Fill = float | None
TINY = torch.finfo(torch.float32).tiny


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
            return take(y, nearest_in_sequence(self.index, self.n_in))
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
