"""Reductions of STTS in training: every frame or square that is left is a mixture of the candidates.

They carry the mixture's weights alone and apply them as sums of slices: the matrix from all tokens to all tokens that
they stand for would not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.anchors import Anchors
from tokred.precision import full_precision, wide
from tokred.reduction import TINY, Fill, Reduction
from tokred.tokens import Grid


class _SoftCut(Reduction):
    """Base: prefix tokens pass, patch tokens are mixed; everything follows from ``_mix`` and ``_back``."""

    prefix: int

    def _mix(self, patches: Tensor) -> Tensor:
        """(B, N, C) patch tokens before to (B, M, C) after."""
        raise TypeError(f"{type(self).__name__} does not say how it mixes")

    def _back(self, patches: Tensor) -> Tensor:
        """(B, M, C) patch tokens after to (B, N, C), each weighted by its share of the place: the transposed of mix."""
        raise TypeError(f"{type(self).__name__} does not say how it is taken back")

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        with full_precision(x):
            return torch.cat([x[:, : self.prefix], self._mix(x[:, self.prefix :])], dim=1)

    def masses(self, size: Tensor | None) -> Tensor | None:
        if size is None:
            return None
        return self.apply(wide(size)[..., None])[..., 0].float()

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        with full_precision(y):
            back = self._back(wide(y[:, self.prefix :]))
            share = self._back(torch.ones_like(y[:, self.prefix :, :1], dtype=back.dtype))
        mixed = back / share.clamp_min(TINY)
        if fill is not None:
            mixed = torch.where(share > 0, mixed, fill)
        return torch.cat([y[:, : self.prefix], mixed.to(y.dtype)], dim=1)

    def _with_prefix(self, places: Tensor) -> Tensor:
        """(B, N - prefix) positions among the patch tokens after, -1 = none, as positions of all tokens."""
        front = torch.arange(self.prefix, device=places.device).expand(places.shape[0], self.prefix)
        return torch.cat([front, torch.where(places < 0, places, places + self.prefix)], dim=1)


@dataclass(frozen=True)
class MixFrames(_SoftCut):
    """Frames that are mixtures of frames.

    Args:
        weights: (B, k, T) share of each frame in each one that is left.
        frame: rows and columns of a frame; prefix: prefix tokens in front.
    """

    weights: Tensor
    frame: tuple[int, int]
    prefix: int = 0

    @property
    def groups(self) -> int:  # type: ignore[override]
        return self.weights.shape[1]

    @property
    def grid(self) -> Grid:  # type: ignore[override]
        return Grid(self.weights.shape[1], *self.frame)

    @property
    def size(self) -> int:
        """Tokens per frame."""
        return self.frame[0] * self.frame[1]

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.prefix + self.weights.shape[2] * self.size

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.prefix + self.weights.shape[1] * self.size

    def positions(self) -> Tensor:
        share, target = self.weights.max(dim=1)  # (B, T)
        inside = torch.arange(self.size, device=target.device)
        places = target[..., None] * self.size + inside
        return self._with_prefix(torch.where(share[..., None] > 0, places, -1).flatten(1))

    def _mix(self, patches: Tensor) -> Tensor:
        return _product(self.weights, patches, self.size)

    def _back(self, patches: Tensor) -> Tensor:
        return _product(self.weights.transpose(1, 2), patches, self.size)


@dataclass(frozen=True)
class MixSquares(_SoftCut):
    """Squares that are, in each frame, mixtures of all squares of that frame.

    Args:
        weights: (B, T, L) share of each square.
        anchors: the squares; prefix: prefix tokens in front.
    """

    weights: Tensor
    anchors: Anchors
    prefix: int = 0

    @property
    def groups(self) -> int:  # type: ignore[override]
        return self.weights.shape[1]

    @property
    def grid(self) -> Grid:  # type: ignore[override]
        return Grid(self.weights.shape[1], self.anchors.rows, self.anchors.columns)

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.prefix + self.weights.shape[1] * self.anchors.h * self.anchors.w

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.prefix + self.weights.shape[1] * self.anchors.area

    def positions(self) -> Tensor:
        b, t, _ = self.weights.shape
        chosen = self.anchors.places(self.weights.device)[self.weights.argmax(dim=-1)]  # (B, T, a * b)
        inside = torch.arange(self.anchors.area, device=chosen.device).expand_as(chosen)
        places = chosen.new_full((b, t, self.anchors.h * self.anchors.w), -1).scatter(2, chosen, inside)
        start = torch.arange(t, device=chosen.device).mul_(self.anchors.area)[:, None]
        return self._with_prefix(torch.where(places < 0, places, places + start).flatten(1))

    def _mix(self, patches: Tensor) -> Tensor:
        frames = self._frames(patches, self.anchors.h, self.anchors.w)
        parts = [self._share(q, frames) * frames[:, :, y, x] for q, (y, x) in enumerate(self._windows())]
        return torch.stack(parts).sum(dim=0).reshape(patches.shape[0], -1, patches.shape[2])

    def _back(self, patches: Tensor) -> Tensor:
        squares = self._frames(patches, self.anchors.rows, self.anchors.columns)
        b, t, _, _, c = squares.shape
        whole = squares.new_zeros(b, t, self.anchors.h, self.anchors.w, c)
        for q, (y, x) in enumerate(self._windows()):
            whole[:, :, y, x] += self._share(q, squares) * squares
        return whole.reshape(b, -1, c)

    def _frames(self, patches: Tensor, h: int, w: int) -> Tensor:
        return patches.reshape(patches.shape[0], self.weights.shape[1], h, w, patches.shape[2])

    def _share(self, q: int, like: Tensor) -> Tensor:
        return self.weights[:, :, q, None, None, None].to(like.dtype)

    def _windows(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each square."""
        a, (down, across), (dy, dx) = self.anchors, self.anchors.shape, self.anchors.steps
        return [
            (slice(i * dy, i * dy + a.rows), slice(j * dx, j * dx + a.columns))
            for i in range(down)
            for j in range(across)
        ]


@dataclass(frozen=True)
class Chained(Reduction):
    """Two reductions, one after the other, as one."""

    first: Reduction
    second: Reduction

    @property
    def groups(self) -> int | None:  # type: ignore[override]
        return self.second.groups

    @property
    def grid(self) -> Grid | None:  # type: ignore[override]
        return self.second.grid

    @property
    def n_in(self) -> int:  # type: ignore[override]
        return self.first.n_in

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.second.n_out

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        return self.second.apply(self.first.apply(x, size), self.first.masses(size))

    def masses(self, size: Tensor | None) -> Tensor | None:
        return self.second.masses(self.first.masses(size))

    def positions(self) -> Tensor:
        first, last = self.first.positions(), torch.nn.functional.pad(self.second.positions(), (0, 1), value=-1)
        return last.gather(1, torch.where(first < 0, self.second.n_in, first))

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return self.first.restore(self.second.restore(y, fill), fill)


def _product(weights: Tensor, patches: Tensor, size: int) -> Tensor:
    """Weights (B, k, T) times the frames of (B, T * size, C): (B, k * size, C)."""
    b, _, c = patches.shape
    mixed = weights.to(patches.dtype) @ patches.reshape(b, -1, size * c)
    return mixed.reshape(b, -1, c)
