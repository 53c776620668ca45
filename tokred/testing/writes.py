"""What a reducer was given to look at, and which of it is no longer what it was."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.probe import Probe
from tokred.tokens import Tokens


def given(tokens: Tokens, probe: Probe) -> dict[str, Tensor]:
    """The tensors that a step can reach, by a name for messages: features first."""
    queries, keys, values = probe._qkv
    found = {
        "the features": tokens.x,
        "the masses": tokens.size,
        "the sample seeds": tokens.sample_seed,
        "the provenance": tokens.source,
        "the mask": tokens.policy,
        "the block's input": probe._block_input,
        "the queries": queries,
        "the keys": keys,
        "the values": values,
        "the MLP's output": probe._ffn,
        "the attention's bias": probe.log_size,
    }
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of them, to compare with later."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def written(before: dict[str, Tensor], now: dict[str, Tensor]) -> str:
    """The names of those that changed, "" = none; NaN stays NaN."""
    return ", ".join(name for name, tensor in now.items() if not _same(before[name], tensor))


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())
