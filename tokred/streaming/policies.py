"""Which tokens are sent on: decided from how far each has moved since it was last sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tokred.precision import wide
from tokred.schedule import ScheduleError


@dataclass(frozen=True)
class Chosen:
    """The tokens that are sent, per stream.

    Args:
        index: (B, K) int64, rising positions, each once per stream.
        valid: (B, K) bool, False where a stream chose fewer than K: those entries fill the rectangle and change
            nothing. None = all count.
    """

    index: Tensor
    valid: Tensor | None = None

    @property
    def counts(self) -> Tensor:
        """(B,) int64, tokens sent by each stream."""
        if self.valid is None:
            return self.index.new_full((self.index.shape[0],), self.index.shape[1])
        return self.valid.sum(dim=1)

    @property
    def width(self) -> int:
        """K, the largest number of tokens that any stream sends."""
        return self.index.shape[1]

    def of_stream(self, stream: int) -> Tensor:
        """(r,) the positions of one stream."""
        return self.index[stream] if self.valid is None else self.index[stream][self.valid[stream]]


class Policy(Protocol):
    """Decides from the length of each token's change."""

    @property
    def order(self) -> float: ...

    def choose(self, length: Tensor) -> Chosen:
        """The tokens to send.

        Args:
            length: (B, N) norm of each token's change, float32 or wider.
        """


@dataclass(frozen=True)
class TopR:
    """The r tokens that changed most; ties go to the earlier, not-a-number counts as the largest change.

    Args:
        r: tokens, at least 0.
        order: p of the norm.
    """

    r: int
    order: float = 2

    def choose(self, length: Tensor) -> Chosen:
        if self.r > length.shape[-1]:
            raise ScheduleError(f"r = {self.r} tokens cannot be chosen of {length.shape[-1]}: allowed is 0..that")
        return _largest(length, self.r)


@dataclass(frozen=True)
class Fraction:
    """This share of the tokens that are there, rounded down.

    Args:
        fraction: in [0, 1]; order: p of the norm.
    """

    fraction: float
    order: float = 2

    def choose(self, length: Tensor) -> Chosen:
        return _largest(length, int(self.fraction * length.shape[-1]))


@dataclass(frozen=True)
class Threshold:
    """All tokens that changed by more than this; not-a-number is not more.

    The official code takes one stream at a time; here streams that send fewer than another are filled up with entries
    that change nothing.

    Args:
        threshold: exclusive; a negative one sends every token. order: p of the norm.
    """

    threshold: float
    order: float = 2

    def choose(self, length: Tensor) -> Chosen:
        return chosen_of(length > self.threshold)


def chosen_of(mask: Tensor) -> Chosen:
    """The marked positions of each stream, (B, N) bool, as a rectangle of the longest."""
    if mask.shape[0] == 1:
        return Chosen(mask[0].nonzero()[:, 0][None])
    counts = mask.sum(dim=1)
    width = int(counts.max())
    # Marked ones first, in order; what follows are other positions, so that no position occurs twice.
    index = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    full = bool((counts == width).all())
    return Chosen(index, None if full else mask.gather(1, index))


def change(current: Tensor, reference: Tensor, order: float, dim: int) -> Tensor:
    """Length of each token's change, float32 or wider.

    Args:
        current, reference: (B, N, D), or (B, D, N) with ``dim`` = -2; dim: the axis of the features.
    Returns:
        (B, N).
    """
    return torch.linalg.vector_norm(wide(current - reference), ord=order, dim=dim)


def _largest(length: Tensor, count: int) -> Chosen:
    if count == length.shape[-1]:
        return Chosen(torch.arange(count, device=length.device).expand(length.shape))
    ranked = length.argsort(dim=-1, descending=True, stable=True)[..., :count]
    return Chosen(ranked.sort(dim=-1).values)
