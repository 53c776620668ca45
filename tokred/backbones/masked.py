"""Attention under a keep mask: tokens that training has dropped are there, and are seen by nobody but themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.precision import full_precision, wide

LEAK = 1e-6
"""Mass spread evenly over all keys in every row, so that no row divides by zero (DynamicViT's code)."""


def masked_softmax(logits: Tensor, policy: Tensor) -> Tensor:
    """Attention weights with masked keys, in float32 or wider; differentiable in the mask.

    A query always sees its own token. The maximum is over all keys, masked ones included. Source: DynamicViT eq. 10-11
    with the two small constants of its code.

    Args:
        logits: (B, H, N, N); policy: (B, N), 1 = seen, 0 = masked.
    Returns:
        (B, H, N, N), rows sum to one.
    """
    logits = wide(logits)
    n = logits.shape[-1]
    diagonal = torch.eye(n, dtype=logits.dtype, device=logits.device)
    seen = policy.to(logits.dtype)[:, None, None]
    seen = seen + (1 - seen) * diagonal
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp() * seen
    return (weights + LEAK / n) / (weights.sum(dim=-1, keepdim=True) + LEAK)


def attend_masked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    policy: Tensor,
    log_size: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention (B, H, N, d) under a mask (B, N); one map is held in full, so this is for training only.

    The same numbers as ``masked_softmax`` times v: the mask is multiplied into the values instead of the map, the own
    token of masked queries and the leak are added as what they are, a vector each. With dropout the map itself is
    needed.
    """
    with full_precision(q):
        q, k, wide_v, p = wide(q), wide(k), wide(v), wide(policy)
        logits = q @ k.transpose(-1, -2) * scale
        if log_size is not None:
            logits = logits + log_size[:, None, None]
        if dropout > 0:
            return (F.dropout(masked_softmax(logits, policy), dropout) @ wide_v).to(v.dtype)
        # The maximum by its place: its gradient is then one entry per row instead of a pass over the map.
        highest = logits.gather(-1, logits.detach().argmax(dim=-1, keepdim=True))
        own = (logits.diagonal(dim1=-2, dim2=-1)[..., None] - highest).exp() * (1 - p)[:, None, :, None]
        seen = p[:, None, :, None]
        both = (logits - highest).exp_() @ torch.cat([seen * wide_v, seen.expand(-1, q.shape[1], -1, -1)], dim=-1)
        above = both[..., :-1] + own * wide_v + LEAK * wide_v.mean(dim=-2, keepdim=True)
        return (above / (both[..., -1:] + own + LEAK)).to(v.dtype)
