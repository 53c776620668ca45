"""Squares of a frame: which of them there are, what they score, and which tokens they hold.

Geometry of STTS's spatial stage (Wang et al., ECCV 2022, arXiv 2111.11591). The official code knows square frames
only; here each axis is treated by the same rule, which is the official one where the frame is a square.
Notation: H x W frame, a x b square, L squares in reading order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.precision import wide


def side(length: int, share: float) -> int:
    """Side of the square that holds a share of a frame of this side: int(sqrt(int(length^2 * share))), as officially;
    0 where the share is less than one token."""
    return math.isqrt(int(length * length * share))


@dataclass(frozen=True)
class Anchors:
    """All places of a square in a frame at a stride.

    Args:
        h, w: the frame, in tokens; rows, columns: the square.
        stride: step between squares (down, across); None = half of the free play, at least 1. Where the free play is
            odd and at least 5, the last row or column is then in no square, as officially.
    Raises:
        ValueError: the square does not fit.
    """

    h: int
    w: int
    rows: int
    columns: int
    stride: int | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= self.h and 1 <= self.columns <= self.w):
            raise ValueError(
                f"a square of {self.rows} x {self.columns} is not in a frame of {self.h} x {self.w}: "
                f"allowed is 1..{self.h} x 1..{self.w}"
            )
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride = {self.stride} is not a whole number of at least 1")

    @property
    def steps(self) -> tuple[int, int]:
        """Stride down and across."""
        if self.stride is not None:
            return self.stride, self.stride
        return max((self.h - self.rows) // 2, 1), max((self.w - self.columns) // 2, 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of squares down and across."""
        down, across = self.steps
        return (self.h - self.rows) // down + 1, (self.w - self.columns) // across + 1

    @property
    def count(self) -> int:
        """Number of squares L."""
        down, across = self.shape
        return down * across

    @property
    def area(self) -> int:
        """Tokens in a square."""
        return self.rows * self.columns

    def places(self, device: torch.device | str | None = None) -> Tensor:
        """Tokens of each square as places in the frame, in reading order: (L, a * b) int64."""
        (down, across), (dy, dx) = self.shape, self.steps
        top = torch.arange(down, device=device).mul_(dy * self.w)[:, None, None, None]
        left = torch.arange(across, device=device).mul_(dx)[None, :, None, None]
        y = torch.arange(self.rows, device=device).mul_(self.w)[None, None, :, None]
        x = torch.arange(self.columns, device=device)[None, None, None, :]
        return (top + left + y + x).reshape(self.count, self.area)

    def means(self, scores: Tensor) -> Tensor:
        """Mean score of each square: (R, H * W) scores of the tokens -> (R, L), float32 or wider."""
        frames = wide(scores).reshape(-1, 1, self.h, self.w)
        return F.avg_pool2d(frames, (self.rows, self.columns), self.steps).flatten(1)

    @property
    def centre(self) -> int:
        """The square nearest to the middle of the frame, the earlier one of a tie."""
        return self._middle(0) * self.shape[1] + self._middle(1)

    def _middle(self, axis: int) -> int:
        length, size = ((self.h, self.rows), (self.w, self.columns))[axis]
        return min(range(self.shape[axis]), key=lambda i: abs(2 * i * self.steps[axis] + size - length))
