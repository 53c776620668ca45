"""Count the multiply-adds of a few tensor operations while they run, also on the meta device.

For the small steps of reducers. It watches calls of torch functions, which loads nothing and costs microseconds;
torch's own counter is the proof in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_PRODUCTS = {torch.matmul, torch.bmm, torch.mm, torch.mv, torch.dot, Tensor.matmul, Tensor.bmm, Tensor.mm, Tensor.mv}
_PRODUCTS |= {Tensor.__matmul__}
_ADDED = {torch.baddbmm, torch.addmm, torch.addmv, Tensor.baddbmm, Tensor.addmm, Tensor.addmv}


class MacCounter(TorchFunctionMode):
    """While active, adds up multiply-adds of matrix products, linear layers and attention in ``macs``."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.macs += _macs(func, args, kwargs or {}, out)
        return out


def _macs(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    if func in _PRODUCTS:
        return out.numel() * int(args[0].shape[-1])
    if func is Tensor.__rmatmul__:
        return out.numel() * int(args[1].shape[-1])
    if func in _ADDED:
        return out.numel() * int(args[1].shape[-1])
    if func is F.linear:
        return out.numel() * int(args[0].shape[-1])
    if func is F.layer_norm:
        weight = args[2] if len(args) > 2 else kwargs.get("weight")
        return out.numel() * (4 if weight is None else 5)  # as fvcore estimates a norm
    if func is torch.einsum:
        return _einsum_macs(args)
    if func is F.scaled_dot_product_attention:
        q, k, v = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("query", "key", "value")))
        return math.prod(q.shape[:-1]) * int(k.shape[-2]) * int(q.shape[-1] + v.shape[-1])
    return 0


def _einsum_macs(args: tuple[Any, ...]) -> int:
    """Product of the sizes of all indices: what one contraction in one go takes."""
    equation, operands = args[0], args[1:]
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if len(operands) < 2:
        return 0
    sizes: dict[str, int] = {}
    batch: tuple[int, ...] = ()
    for term, operand in zip(equation.replace(" ", "").split("->")[0].split(","), operands, strict=True):
        front, dots, back = term.partition("...")
        names = [*front, *back]
        inner = operand.ndim - len(names)
        if dots and inner > len(batch):
            batch = tuple(operand.shape[len(front) : len(front) + inner])
        shape = [*operand.shape[: len(front)], *operand.shape[operand.ndim - len(back) :]] if dots else operand.shape
        sizes.update(zip(names, map(int, shape), strict=True))
    return math.prod(sizes.values()) * math.prod(batch)
