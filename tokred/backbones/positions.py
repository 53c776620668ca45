"""Sin-cos position tables and their resampling to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.tokens import Grid


def sincos_flat(n: int, dim: int) -> Tensor:
    """VideoMAE's fixed table over the flattened patch index, (1, n, dim) float32.

    Angles are evaluated in float64 and cast: in float32 the table is off by up to 1e-4.
    """
    with torch.device("cpu"):  # also while a model is built on the meta device: the table is a fact, not a weight
        column = torch.arange(dim)
        period = torch.pow(10000.0, (column - column % 2).double() / dim)
        angle = torch.arange(n, dtype=torch.float64)[:, None] / period
        table = torch.where(column % 2 == 0, angle.sin(), angle.cos())
        return table.float()[None]


def sincos_grid(grid: Grid, dim: int, base: float = 50.0) -> Tensor:
    """Separable table: a third of the channels for time, rows and columns each, (1, T*H*W, dim) float32.

    Small models on small grids learn faster with it than with the flattened one; ``base`` bounds the period.
    """
    per_axis = 2 * (dim // 6)
    widths = (dim - 2 * per_axis, per_axis, per_axis)
    parts = []
    for axis, (length, width) in enumerate(zip(grid, widths, strict=True)):
        half = width // 2
        frequency = base ** (-torch.arange(half, dtype=torch.float64) / max(half, 1))
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        table = torch.cat([angle.sin(), angle.cos(), torch.zeros(length, width - 2 * half, dtype=torch.float64)], dim=1)
        shape = [1, 1, 1, width]
        shape[axis] = length
        parts.append(table.reshape(shape).expand(*grid, width))
    return torch.cat(parts, dim=-1).reshape(1, grid.patches, dim).float()


def resample(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """A position table on another grid: linear over time, bicubic over space, (1, P_new, C).

    Args:
        table: (1, P_old, C) on grid ``old``.
    """
    if old == new:
        return table
    c = table.shape[-1]
    x = table.float().reshape(old.t, old.h, old.w, c)
    if (old.h, old.w) != (new.h, new.w):
        x = F.interpolate(x.permute(0, 3, 1, 2), size=(new.h, new.w), mode="bicubic", align_corners=False)
        x = x.permute(0, 2, 3, 1)
    if old.t != new.t:
        flat = x.reshape(old.t, -1).t()[None]
        x = F.interpolate(flat, size=new.t, mode="linear", align_corners=False)[0].t()
    return x.reshape(1, new.patches, c).to(table.dtype)
