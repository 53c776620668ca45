"""Reading and writing rows or columns of per-stream state at positions that differ from stream to stream."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.gather import take
from tokred.streaming.policies import Chosen


def read(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """Slices of x (B, ..., N, ...) along ``dim`` (-2 rows, -1 columns) at index (B, K)."""
    if x.ndim == 3 and dim == -2:
        return take(x, index)
    if x.shape[0] == 1:
        return x[0].index_select(dim, index[0])[None]
    return torch.stack([stream.index_select(dim, at) for stream, at in zip(x, index, strict=True)])


def write(state: Tensor, chosen: Chosen, values: Tensor, dim: int) -> Tensor:
    """State with slices replaced along ``dim``; in place, unless gradients flow through the values.

    Args:
        state: (B, ..., N, ...); values: (B, ..., K, ...), at the chosen positions.
    Returns:
        The state after it; ``keep`` makes of it what may be stored.
    """
    if values.requires_grad or sealed(state):
        state = state.clone()
    if chosen.valid is not None:
        mask = _along(chosen.valid, values, dim)
        values = torch.where(mask, values, read(state, chosen.index, dim))
    for stream in range(state.shape[0]):
        state[stream].index_copy_(dim, chosen.index[stream], values[stream])
    return state


def sealed(state: Tensor) -> bool:
    """Whether state was made in inference mode and may not be written on any more.

    A graph that is being compiled cannot ask: it takes a copy, which is right either way.
    """
    if torch.compiler.is_compiling():
        return True
    return state.is_inference() and not torch.is_inference_mode_enabled()


def keep(x: Tensor) -> Tensor:
    """x as it may be stored for the next frame: outside any graph, and not written on while a graph needs it."""
    return x.detach().clone() if x.requires_grad else x


def silenced(values: Tensor, chosen: Chosen, dim: int) -> Tensor:
    """Values (B, ..., K, ...) with zeros where entries only fill the rectangle."""
    if chosen.valid is None:
        return values
    return torch.where(_along(chosen.valid, values, dim), values, values.new_zeros(()))


def _along(valid: Tensor, like: Tensor, dim: int) -> Tensor:
    """(B, K) as a mask that broadcasts over ``like``, with K along ``dim``."""
    shape = [valid.shape[0]] + [1] * (like.ndim - 1)
    shape[dim] = valid.shape[1]
    return valid.reshape(shape)
