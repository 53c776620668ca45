"""Keys and values averaged over squares of the grid: fewer columns of attention, and which of them are new."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.schedule import ScheduleError
from tokred.streaming.policies import Chosen, chosen_of
from tokred.tokens import Grid


class Pooling:
    """Averages keys and values over ``size`` x ``size`` patches of each frame; prefix tokens stay as they are.

    The official code pools one stream at a time correctly: with more it counts a square twice where two of its tokens
    changed. Here each stream has its own set of squares.

    Args:
        size: side of a square in patches; grid: of the patch tokens; prefix: tokens in front of them.
    Raises:
        ScheduleError: the grid does not divide into squares.
    """

    def __init__(self, size: int, grid: Grid, prefix: int = 0) -> None:
        if grid.h % size or grid.w % size:
            raise ScheduleError(f"pool_size = {size} does not divide the grid of {grid.h} x {grid.w} patches")
        self.size = size
        self.grid = grid
        self.prefix = prefix
        t, h, w = grid
        rows, columns = h // size, w // size
        frame = torch.arange(t)[:, None, None] * (rows * columns)
        row = torch.arange(h)[None, :, None] // size * columns
        column = torch.arange(w)[None, None] // size
        patches = (frame + row + column).flatten() + prefix
        self.count = prefix + t * rows * columns
        self._cell = torch.cat([torch.arange(prefix), patches])

    def __call__(self, x: Tensor) -> Tensor:
        """Keys or values (B, H, N, d) to (B, H, M, d)."""
        b, heads, _, width = x.shape
        t, h, w = self.grid
        s = self.size
        squares = x[:, :, self.prefix :].reshape(b, heads, t, h // s, s, w // s, s, width).mean(dim=(4, 6))
        pooled = squares.reshape(b, heads, -1, width)
        return pooled if not self.prefix else torch.cat([x[:, :, : self.prefix], pooled], dim=2)

    def cells(self, chosen: Chosen) -> Chosen:
        """The columns that hold one of the chosen tokens, each once per stream."""
        places = self._cell.to(chosen.index.device)[chosen.index]
        if chosen.valid is not None:
            places = torch.where(chosen.valid, places, self.count)
        mask = torch.zeros(places.shape[0], self.count + 1, dtype=torch.bool, device=places.device)
        return chosen_of(mask.scatter_(1, places, 1)[:, :-1])
