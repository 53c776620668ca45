"""Reductions of methods that make tokens anew and bring the old ones back: nothing is gathered, layers compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.gather import take
from tokred.reduction import Fill, Reduction
from tokred.tokens import Grid, Tokens


@dataclass(frozen=True)
class Generate(Reduction):
    """New tokens in place of all patch tokens; prefix tokens stay in front as they are.

    What the new tokens are, ``make`` says. Where a patch went, and what it weighs, is that of the one new token that
    stands for its place: bookkeeping, for the layers mix all of them.

    Args:
        make: patch tokens (B, P, C) to new ones (B, M, C).
        cells: (B, P) int64, the new token that stands for each patch; every one occurs.
        count: new tokens M; prefix: prefix tokens in front.
        groups: equal temporal groups of the new tokens; grid: the grid that they fill, on hosts with windows.
        sets_aside: whether a later step brings the patch tokens back.
    """

    make: Callable[[Tensor], Tensor]
    cells: Tensor
    count: int
    prefix: int = 0
    groups: int | None = None
    grid: Grid | None = None
    sets_aside: bool = False

    @property
    def linear(self) -> bool:
        return False

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.prefix + self.cells.shape[1]

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.prefix + self.count

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        made = self.make(x[:, self.prefix :])
        return made if not self.prefix else torch.cat([x[:, : self.prefix], made], dim=1)

    def masses(self, size: Tensor | None) -> Tensor | None:
        went = self.positions()
        mass = torch.ones_like(went, dtype=torch.float32) if size is None else size
        return mass.new_zeros(mass.shape[0], self.n_out).scatter_add(1, went, mass)

    def positions(self) -> Tensor:
        front = torch.arange(self.prefix, device=self.cells.device).expand(self.cells.shape[0], -1)
        return torch.cat([front, self.cells + self.prefix], dim=1)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return take(y, self.positions())


@dataclass(frozen=True)
class Recover(Reduction):
    """The patch tokens that an earlier step set aside come back, computed on with what became of the new tokens.

    Places, masses and provenance are again those of the tokens that come back; prefix tokens go on as they are now.

    Args:
        make: patch tokens that come back (B, P, C), patch tokens now (B, M, C), to the former's new features (B, P, C).
        aside: the tokens that come back (``Tokens.aside``).
        now: patch tokens M before the step.
    """

    make: Callable[[Tensor, Tensor], Tensor]
    aside: Tokens
    now: int

    brings_back = True

    @property
    def groups(self) -> int | None:  # type: ignore[override]
        return self.aside.groups

    @property
    def linear(self) -> bool:
        return False

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.aside.prefix + self.now

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.aside.count

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        prefix = self.aside.prefix
        made = self.make(self.aside.patches, x[:, prefix:])
        return made if not prefix else torch.cat([x[:, :prefix], made], dim=1)

    def masses(self, size: Tensor | None) -> Tensor | None:
        return self.aside.size

    def positions(self) -> Tensor:
        """One of the many patches that each token went to: the first of its share, in order."""
        prefix, device = self.aside.prefix, self.aside.x.device
        share = torch.arange(self.now, device=device) * self.aside.patch_count // self.now
        places = torch.cat([torch.arange(prefix, device=device), share + prefix])
        return places.expand(self.aside.x.shape[0], -1)

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return take(y, self.positions())
