"""Attention statistics from queries and keys, never holding the B x heads x N x N map.

All results are float32 (float64 for float64 input), whatever the dtype of the main path.
Notation: q, k (B, H, N, d); scale multiplies the logits; log_size (B, N) is added to every logit towards a token.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tokred.precision import full_precision, wide

TINY = torch.finfo(torch.float32).tiny

ROWS = 128
"""Query rows per block: 25 MiB at N = 1568, the fastest of 32..256 on CPU."""

CUDA_BLOCK_BYTES = 256 << 20


class RowStatistics(NamedTuple):
    """Received attention (B, N): mean over heads and queries, sums to one. Negative entropy (B, N) per query row of
    the head-averaged map, in nats: sum_j P log P. Sharpness (B, N): the same plus log N, so zero for uniform attention;
    the difference of two rows is exact to float32 there, which log N would drown."""

    received: Tensor | None
    negative_entropy: Tensor | None
    sharpness: Tensor | None


class Rows(Protocol):
    """Row statistics that may be computed when read; see ``RowStatistics``."""

    @property
    def received(self) -> Tensor | None: ...

    @property
    def negative_entropy(self) -> Tensor | None: ...

    @property
    def sharpness(self) -> Tensor | None: ...


class RowsWanted(NamedTuple):
    """What steps will read of a block's attention rows.

    Args:
        received: column means; entropy: row entropies; row_mass: (B, N) weight of each row in the column means.
    """

    received: bool
    entropy: bool
    row_mass: Tensor | None = None


def attention_row(query: Tensor, k: Tensor, scale: float, log_size: Tensor | None = None) -> Tensor:
    """Attention of one query per head, averaged over heads: O(N d). Differentiable.

    Args:
        query: (B, H, d); k: (B, H, N, d).
    Returns:
        (B, N), rows sum to one.
    """
    with full_precision(k):
        logits = (wide(k) @ wide(query)[..., None])[..., 0] * scale
    if log_size is not None:
        logits = logits + log_size[:, None]
    return logits.softmax(dim=-1).mean(dim=1)


def attention_map(q: Tensor, k: Tensor, scale: float, log_size: Tensor | None = None) -> Tensor:
    """The full attention map (B, H, N, N); only for methods that truly need it."""
    with full_precision(q):
        logits = wide(q) @ wide(k).transpose(-1, -2) * scale
    if log_size is not None:
        logits = logits + log_size[:, None, None]
    return logits.softmax(dim=-1)


@torch.no_grad()
def row_statistics(
    q: Tensor,
    k: Tensor,
    scale: float,
    *,
    received: bool = True,
    entropy: bool = False,
    log_size: Tensor | None = None,
    row_mass: Tensor | None = None,
    rows: int = ROWS,
) -> RowStatistics:
    """Column means and row entropies of the head-averaged attention map, streamed over blocks of query rows.

    No gradient flows through it: in training the scores are constants.

    Args:
        received: whether to compute the column mean; entropy: whether to compute the row entropies.
        row_mass: (B, N) weight of each query row in the column mean, e.g. its mass; None = equal.
        rows: query rows per block; the extra memory is 2 * 4 * B * rows * N bytes on CPU.
    Returns:
        RowStatistics; a part that was not asked for is None.
    """
    with full_precision(q):
        return _row_statistics(wide(q), wide(k), scale, received, entropy, log_size, row_mass, rows)


def _row_statistics(
    q: Tensor,
    k: Tensor,
    scale: float,
    received: bool,
    entropy: bool,
    log_size: Tensor | None,
    row_mass: Tensor | None,
    rows: int,
) -> RowStatistics:
    b, h, n, _ = q.shape
    keys = k.transpose(-1, -2)
    column = q.new_zeros(b, n)
    sharpness = q.new_empty(b, n) if entropy else None
    if q.is_cuda:
        rows = max(16, CUDA_BLOCK_BYTES // (4 * b * h * n))
    space = q.new_empty(2, b, 0 if q.is_cuda else min(rows, n), n)
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        mean = _mean_over_heads(q[:, :, start:stop], keys, scale, log_size, space)  # (B, R, N)
        if received:
            weights = None if row_mass is None else row_mass[:, start:stop].to(mean.dtype)
            column += mean.sum(1) if weights is None else (weights[:, None] @ mean)[:, 0]
        if sharpness is not None:
            # sum P log(N P): without the constant log N, rounding is that of the small result.
            # The floor makes 0 log 0 a zero; xlogy does too, in twice the time.
            mean.mul_(n)
            sharpness[:, start:stop] = mean.clamp_min(TINY).log().mul_(mean).sum(-1).div_(n)
    if row_mass is not None:
        column /= row_mass.sum(1, keepdim=True).to(column.dtype)
    else:
        column /= n
    negative = None if sharpness is None else sharpness - math.log(n)
    return RowStatistics(column if received else None, negative, sharpness)


def _mean_over_heads(q: Tensor, keys: Tensor, scale: float, log_size: Tensor | None, space: Tensor) -> Tensor:
    """Head average of the attention rows of q (B, H, R, d): (B, R, N), on a CPU in ``space`` (2, B, >= R, N)."""
    bias = None if log_size is None else log_size[:, None].to(q.dtype)
    h = q.shape[1]
    if q.is_cuda:
        logits = q @ keys * scale
        return (logits if bias is None else logits + bias[:, None]).softmax(-1).mean(1)
    total, part = space[:, :, : q.shape[2]]
    for head in range(h):
        # One head at a time, in the same two blocks, stays in cache: faster than batching heads on a CPU.
        out = part if head else total
        torch.bmm(q[:, head] * scale, keys[:, head], out=out)
        if bias is not None:
            out.add_(bias)
        torch.softmax(out, -1, out=out)
        if head:
            total.add_(part)
    return total.div_(h)


def activation_map(x: Tensor) -> Tensor:
    """Sum of absolute features, min-max scaled over the last token axis: (..., N, C) -> (..., N) in [0, 1].

    Source: STA section 3; the range is taken per sample and group as in the official code. A constant map gives 0
    (the official code divides 0 by 0).
    """
    a = x.detach().abs().sum(dim=-1, dtype=torch.promote_types(x.dtype, torch.float32))
    low = a.amin(dim=-1, keepdim=True)
    span = a.amax(dim=-1, keepdim=True) - low
    return (a - low) / torch.where(span > 0, span, torch.ones_like(span))
