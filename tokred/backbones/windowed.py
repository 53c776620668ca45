"""Window attention of reduced tokens: the whole grid stands in the windows, only tokens are computed on.

Every place of the grid is filled with a token (``tokred.cover``), so that windows are those of the dense model. Keys
and values are needed everywhere. Queries are not: the outputs of replicas are thrown away (STA, ICCV 2023, section 4),
so the form that skips them gives the same tokens with fewer multiply-adds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.backbones.windows import BiasedAttention, WindowLayout, attend_windows, relative_bias, window_bias
from tokred.cover import Cover
from tokred.gather import scatter_sum, take
from tokred.precision import full_precision, wide
from tokred.saliency import RowStatistics

if TYPE_CHECKING:
    from tokred.plan import Plan

LOOP_VOLUME = 96
"""Places of a window from which windows are computed one by one: a larger one alone keeps the cores busy."""


class Projections(BiasedAttention, Protocol):
    """What window attention needs besides its bias."""

    num_heads: int
    qkv: nn.Linear
    proj: nn.Linear


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(..., N, C) as (..., heads, N, d): a view."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def attend_whole(attn: Projections, qkv: Tensor, cover: Cover, layout: WindowLayout, scale: float) -> Tensor:
    """The published form: every place asks, and the outputs of replicas are dropped.

    Args:
        qkv: (B, M, 3C) of the tokens.
    Returns:
        (B, M, C) before the output projection.
    """
    full = qkv if cover.complete else take(qkv, cover.fill)
    windows = layout.split(full, attn.qkv.bias)
    q, k, v = (heads_of(part, attn.num_heads) for part in windows.chunk(3, dim=-1))
    bias = relative_bias(attn, layout.volume)[None]
    masks = layout.added(bias.dtype) if len(layout.ranges) > 1 else None
    out = layout.join(attend_windows(q, k, v, bias, layout.ranges, scale, masks))
    return out if cover.complete else to_tokens(out, cover, qkv.shape[1])


def exact_form(volume: int, device: torch.device) -> bool:
    """Whether every window runs exactly its own queries; else all run as many as the fullest one."""
    return volume >= LOOP_VOLUME and device.type != "cuda"


def padding_notes(geometry: Geometry, plan: Plan, device: torch.device) -> tuple[str, ...]:
    """What the count without queries of replicas leaves out: windows that are filled up to the fullest one.

    How many that are depends on the content, so it is said and not counted.
    """
    blocks = []
    for block, (queries, grid) in enumerate(zip(plan.queries, plan.grids, strict=True)):
        asked = geometry.stages[geometry.stage_of(block)].window
        sizes = [min(size, length) for size, length in zip(asked, grid, strict=True)]
        single = all(size == length for size, length in zip(sizes, grid, strict=True))
        if queries < grid.patches and not single and not exact_form(math.prod(sizes), device):
            blocks.append(str(block))
    if not blocks:
        return ()
    where = f"block{'s' if len(blocks) > 1 else ''} {', '.join(blocks)}"
    return (
        f"attention of {where}: every window runs as many queries as the fullest one, so more than the multiply-adds "
        "without replicas, and at most the published ones",
    )


def attend_kept(attn: Projections, qkv: Tensor, cover: Cover, layout: WindowLayout, scale: float) -> Tensor:
    """The same without queries of replicas; every token must have one place.

    Args:
        qkv: (B, M, 3C) of the tokens.
    Returns:
        (B, M, C) before the output projection.
    """
    assert cover.home is not None
    if qkv.shape[0] == 0:
        return qkv[..., : qkv.shape[2] // 3]
    slots, order = layout.slot[cover.home].sort(dim=1)  # window by window, in the windows' own order
    form = _one_by_one if exact_form(layout.volume, qkv.device) else _padded
    return form(attn, qkv, cover, slots, order, layout, scale)


def _one_by_one(
    attn: Projections, qkv: Tensor, cover: Cover, slots: Tensor, order: Tensor, layout: WindowLayout, scale: float
) -> Tensor:
    """Each window of each sample with exactly its queries; everything about a window stays in the cache.

    Args:
        slots: (B, M) window slots of the tokens, sorted; order: (B, M) the tokens that they are of.
    """
    b, m, width = qkv.shape
    dim, volume, heads = width // 3, layout.volume, attn.num_heads
    bias = relative_bias(attn, volume).to(qkv.dtype)
    masks = layout.added(qkv.dtype)
    pad = None if attn.qkv.bias is None else attn.qkv.bias[dim:].to(qkv.dtype)
    places = layout.index.view(layout.count, volume)
    padding = places == cover.grid.patches
    padded = padding.any(1).tolist()
    patterns = [i for i, (start, end) in enumerate(layout.ranges) for _ in range(start, end)]
    rows = slots % volume
    window = slots // volume
    counts = torch.zeros(b, layout.count, dtype=torch.int64).scatter_add_(1, window, torch.ones_like(window)).tolist()
    out = qkv.new_empty(b * m, dim)
    for sample in range(b):
        tokens = qkv[sample]
        stands = cover.fill[sample][places.clamp_max(cover.grid.patches - 1)]  # (count, V)
        first = 0
        for number, n in enumerate(counts[sample]):
            if n == 0:
                continue
            asking = order[sample, first : first + n]
            kv = tokens[:, dim:].index_select(0, stands[number])
            if padded[number]:
                kv[padding[number]] = kv.new_zeros(2 * dim) if pad is None else pad
            here = rows[sample, first : first + n]
            added = bias if n == volume else bias.index_select(1, here)
            if patterns[number]:  # pattern 0 masks nothing
                added = added + masks[patterns[number]].index_select(0, here)
            q, k, v = (
                heads_of(part, heads)[None]
                for part in (tokens[:, :dim].index_select(0, asking), kv[:, :dim], kv[:, dim:])
            )
            got = F.scaled_dot_product_attention(q, k, v, attn_mask=added[None], scale=scale)
            out.index_copy_(0, asking + sample * m, got[0].transpose(0, 1).flatten(1))
            first += n
    return out.view(b, m, dim)


def _padded(
    attn: Projections, qkv: Tensor, cover: Cover, slots: Tensor, order: Tensor, layout: WindowLayout, scale: float
) -> Tensor:
    """All windows at once, queries padded to the fullest one; arguments as ``_one_by_one``."""
    b, m, width = qkv.shape
    dim = width // 3
    kv = layout.split(take(qkv[..., dim:], cover.fill), None if attn.qkv.bias is None else attn.qkv.bias[dim:])
    k, v = (heads_of(part, attn.num_heads) for part in kv.chunk(2, dim=-1))  # (count, B, heads, V, d)
    q = take(qkv[..., :dim], order)
    bias = window_bias(attn, layout)
    volume, count = layout.volume, layout.count
    window = slots // volume
    counts = window.new_zeros(b, count).scatter_add(1, window, torch.ones_like(window))
    most = int(counts.max())
    begin = counts.cumsum(1) - counts
    place = torch.arange(m, device=q.device) - begin.gather(1, window)  # position of each query inside its window
    cell = window * most + place  # (B, M) in (count, most)
    source = torch.zeros(b, count * most, dtype=torch.int64, device=q.device)
    source.scatter_(1, cell, torch.arange(m, device=q.device).expand(b, m))
    rows = torch.zeros(b, count * most, dtype=torch.int64, device=q.device).scatter_(1, cell, slots % volume)
    asked = heads_of(take(q, source).view(b, count, most, dim), k.shape[2]).transpose(0, 1)
    pattern = torch.cat(
        [q.new_full((end - start,), i, dtype=torch.int64) for i, (start, end) in enumerate(layout.ranges)]
    )
    rows = rows.view(b, count, most).transpose(0, 1)  # (count, B, most)
    # Rows of the bias with the heads inside: (patterns * V, heads * V), one copy per query.
    flat = bias.transpose(1, 2).flatten(0, 1).flatten(1)
    added = flat.index_select(0, (pattern[:, None, None] * volume + rows).flatten())
    added = added.view(count, b, most, bias.shape[1], volume).transpose(2, 3)
    out = attend_windows(asked, k, v, added, None, scale)  # (count, B, most, C)
    return take(take(out.transpose(0, 1).reshape(b, count * most, dim), cell), order.argsort(dim=1))


def to_tokens(full: Tensor, cover: Cover, count: int) -> Tensor:
    """What the places of tokens hold: (B, P, C) to (B, M, C), the mean where a token carries several places."""
    if cover.complete:
        return full
    if cover.home is not None:
        return take(full, cover.home)
    assign = torch.where(cover.owner < 0, count, cover.owner)
    total = scatter_sum(full, assign, count + 1)[:, :count]
    places = scatter_sum(torch.ones_like(full[..., :1]), assign, count + 1)[:, :count]
    return (total / places).to(full.dtype)


class WindowStatistics:
    """Attention statistics inside windows, as the dense model computes them on the filled grid.

    Received attention of a place: the mean over heads, summed over the places of its window that ask, divided by all
    places of the grid; padding does not ask. Entropy of a place: that of its row over its window, padding included, in
    the mean over heads. A token that carries several places has their mean.
    """

    def __init__(self, attn: Projections, cover: Cover, layout: WindowLayout) -> None:
        self._attn = attn
        self._cover = cover
        self._layout = layout

    @torch.no_grad()
    def rows(self, q: Tensor, k: Tensor, scale: float, *, received: bool, entropy: bool) -> RowStatistics:
        """Received attention, negative row entropy and sharpness per token, (B, M) each.

        Args:
            q, k: (B, heads, M, d) of the tokens.
        """
        layout, cover = self._layout, self._cover
        _, heads, m, d = q.shape
        dim = heads * d
        flat = torch.cat([q.transpose(1, 2).flatten(2), k.transpose(1, 2).flatten(2)], dim=-1)
        pad = None if self._attn.qkv.bias is None else self._attn.qkv.bias[: 2 * dim]
        windows = layout.split(flat if cover.complete else take(flat, cover.fill), pad)
        asked, keys = (wide(heads_of(part, heads)) for part in windows.chunk(2, dim=-1))
        bias = wide(window_bias(self._attn, layout))
        real = torch.ones(layout.count * layout.volume, dtype=torch.bool, device=q.device)
        real[layout.pads] = False
        real = real.view(layout.count, 1, layout.volume, 1)
        columns, entropies = [], []
        for pattern, (start, end) in enumerate(layout.ranges):
            for number in range(start, end):
                with full_precision(asked):
                    logits = asked[number] @ keys[number].transpose(-1, -2) * scale + bias[pattern]
                mean = logits.softmax(-1).mean(1)  # (B, V, V)
                columns.append((mean * real[number]).sum(1) / cover.grid.patches)
                entropies.append(torch.special.xlogy(mean, mean).sum(-1))
        back = [layout.join(torch.stack(part)[..., None]) for part in (columns, entropies)]
        found, negative = (to_tokens(part, cover, m)[..., 0] for part in back)
        sharp = negative + math.log(layout.volume)
        return RowStatistics(found if received else None, negative if entropy else None, sharp if entropy else None)
