"""Decisions in full precision, also inside a user's autocast region."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(like: Tensor) -> AbstractContextManager[object]:
    """A region in which autocast does not narrow matrix products on the device of ``like``.

    Autocast would run a product of two float32 scores in half precision, and a decision would then depend on it.
    """
    kind = like.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
