"""Orders in which ties go to the earlier."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# torch 2.6 does not tell: there a stable sort is exported, which ONNX does not have.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def ranking(x: Tensor, dim: int = -1, *, descending: bool = False) -> Tensor:
    """Positions in the order of the values, equal ones in their own order; as ``argsort(stable=True)``.

    A program that is being exported gets two plain sorts, because ONNX has no stable one: by value, and then, where
    values are equal, by position.

    Args:
        x: (..., N, ...); dim: along which; descending: largest first. Among NaN a program may change the order.
    Returns:
        int64, the shape of x.
    """
    if not is_exporting():
        return x.argsort(dim=dim, descending=descending, stable=True)
    n = x.shape[dim]
    values, index = x.movedim(dim, -1).sort(dim=-1, descending=descending)
    group = F.pad((values[..., 1:] != values[..., :-1]).long().cumsum(-1), (1, 0))
    return ((group * n + index).sort(dim=-1).values % n).movedim(-1, dim)
