"""One hash for a set of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weights_digest(weights: nn.Module | Mapping[str, Tensor]) -> str:
    """sha256 (hex) over names, types, shapes and bytes of a state dict, independent of its order and device.

    Raises:
        ValueError: the weights are on the meta device, where they have no values.
    """
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach()
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device: its weights have no values to hash")
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        total.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
