"""Attention and its row statistics in one pass over blocks of query rows.

Fused attention keeps no map, so a method that reads row statistics makes the processor compute all logits and their
softmax a second time. Here each block of rows is computed once, gives its part of the output and of the statistics,
and is overwritten by the next: the map is never held.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tokred.ranking import is_exporting
from tokred.saliency import TINY, RowStatistics, RowsWanted

ROWS = 128
"""Query rows per block, as in ``tokred.saliency``."""

BLOCK = 128 * 1568
"""Entries up to which a block takes several heads and samples; it and its softmax stay in a core's cache."""

LEAST_TOKENS = 128
"""From here on one pass takes 0.6 to 1.0 of the time of fused attention and a second pass, whatever the heads, batch
and masses (one thread); below, starting each small operation costs as much as it saves."""

SPREAD = 60.0
"""Largest difference of two log masses (nats) for which one softmax serves both maps in float32."""


def one_pass(q: Tensor, k: Tensor, v: Tensor, log_size: Tensor | None) -> bool:
    """Whether ``attend_rows`` is right here, and not slower than fused attention and a second pass.

    It is for float32 and float64 on a CPU without gradients. Elsewhere fused attention wins or nobody has measured:
    half precision and GPUs have faster fused kernels, and under autograd, tracing and compilation a loop over blocks
    is held in full.
    """
    return (
        q.device.type == "cpu"
        and q.dtype in (torch.float32, torch.float64)
        and q.dtype == k.dtype == v.dtype
        and q.shape[2] >= LEAST_TOKENS
        and not (torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad))
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not is_exporting()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and (log_size is None or float(log_size.amax() - log_size.amin()) <= SPREAD)
    )


@torch.no_grad()
def attend_rows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    log_size: Tensor | None,
    wanted: RowsWanted,
    *,
    rows: int = ROWS,
    block: int = BLOCK,
) -> tuple[Tensor, RowStatistics]:
    """What fused attention and ``row_statistics`` return, computed together.

    With P the map without mass bias and m the masses, the map with bias is P m / (P m summed over the row): one softmax
    gives the entropies of the one, and output and received attention of the other.

    Args:
        q, k, v: (B, H, N, d); scale: factor on q k^T; log_size: (B, N) bias towards each token, None = none.
        wanted: the statistics.
        rows: most query rows in a block; block: entries up to which it takes several heads and samples.
    Returns:
        Output (B, H, N, d) with the bias; received attention with the bias, entropies without, (B, N) each.
    """
    b, h, n, d = q.shape
    rows = math.ceil(n / math.ceil(n / rows))
    heads = math.ceil(h / math.ceil(h * rows * n / block))
    samples = min(b, block // (h * rows * n)) if heads == h else 1
    space = q.new_empty(max(1, samples), heads, rows, n)
    out = q.new_empty(b, n, h, d)  # as the output projection reads it
    column = q.new_zeros(b, n) if wanted.received else None
    sharpness = q.new_empty(b, n) if wanted.entropy else None
    mass = None if log_size is None else (log_size.to(q.dtype) - log_size.amax(dim=1, keepdim=True)).exp()
    weight = None if wanted.row_mass is None else wanted.row_mass.to(q.dtype)
    for these in torch.arange(b).split(len(space)):
        i = slice(int(these[0]), int(these[-1]) + 1)
        _samples(
            q[i] * scale,
            k[i].mT,
            v[i] if mass is None else v[i] * mass[i, None, :, None],
            None if mass is None else mass[i],
            None if weight is None else weight[i],
            out[i],
            None if column is None else column[i],
            None if sharpness is None else sharpness[i],
            space[: len(these)],
        )
    if column is not None:
        column /= n * h if weight is None else h * weight.sum(1, keepdim=True)
    negative = None if sharpness is None else sharpness - math.log(n)
    return out.transpose(1, 2), RowStatistics(column, negative, sharpness)


def _samples(
    q: Tensor,
    keys: Tensor,
    v: Tensor,
    mass: Tensor | None,
    weight: Tensor | None,
    out: Tensor,
    column: Tensor | None,
    sharpness: Tensor | None,
    space: Tensor,
) -> None:
    """A few samples; ``out`` (B, N, H, d), ``column`` and ``sharpness`` (B, N) are written.

    Args:
        space: (B, heads, rows, N), where every map block is computed in its turn: it stays in the cache.
    """
    h, n = q.shape[1:3]
    heads, rows = space.shape[1:3]
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        mean: Tensor | None = None
        for first in range(0, h, heads):
            these = slice(first, min(first + heads, h))
            p = space[:, : these.stop - first, : stop - start]
            torch.matmul(q[:, these, start:stop], keys[:, these], out=p)
            torch.softmax(p, -1, out=p)
            given = p @ v[:, these]
            asks = None if weight is None else weight[:, None, start:stop].expand(-1, p.shape[1], -1)
            if mass is not None:
                share = (mass[:, None] @ p.flatten(1, 2).mT).unflatten(-1, p.shape[1:3])[:, 0]  # divides biased rows
                given /= share[..., None]
                asks = share.reciprocal() if asks is None else asks / share
            out[:, start:stop, these] = given.transpose(1, 2)
            if column is not None:
                column += p.sum((1, 2)) if asks is None else (asks.flatten(1)[:, None] @ p.flatten(1, 2))[:, 0]
            if sharpness is not None:
                part = p[:, 0] if p.shape[1] == 1 else p.sum(1)
                mean = part.clone() if mean is None else mean.add_(part)
        if sharpness is not None and mean is not None:
            # sum P log(N P) of the mean over heads: see tokred.saliency.
            mean.mul_(n / h)
            sharpness[:, start:stop] = mean.clamp_min(TINY).log_().mul_(mean).sum(-1).div_(n)
    if column is not None and mass is not None:
        column *= mass
