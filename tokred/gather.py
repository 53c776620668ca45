"""Rows moved between token sequences: gathered, summed into places, found nearest."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.precision import wide


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


def nearest_in_sequence(index: Tensor, n: int) -> Tensor:
    """For each of n places, which column of index (B, M) is nearest in the sequence; ties go to the earlier one."""
    ordered, column = index.sort(dim=1)
    places = torch.arange(n, device=index.device).expand(index.shape[0], n).contiguous()
    right = torch.searchsorted(ordered, places).clamp_max(index.shape[1] - 1)
    left = (right - 1).clamp_min(0)
    nearer_left = (places - ordered.gather(1, left)).abs() <= (ordered.gather(1, right) - places).abs()
    return column.gather(1, torch.where(nearer_left, left, right))
