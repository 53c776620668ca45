"""Attention inside three-dimensional windows: relative bias and shift mask as one cached tensor, and a fused kernel.

Reference: Video Swin Transformer (Liu et al., CVPR 2022), which gathers the bias and builds the mask in every call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.window_layout import BLOCKED, Window, WindowLayout, relative_index, window_layout

__all__ = [
    "BLOCKED",
    "Window",
    "WindowLayout",
    "attend_windows",
    "relative_bias",
    "relative_index",
    "window_bias",
    "window_layout",
]


class BiasedAttention(Protocol):
    """What ``window_bias`` reads: this package's window attention, or torchvision's ShiftedWindowAttention3d."""

    @property
    def relative_position_bias_table(self) -> Tensor:
        """((2t-1)(2h-1)(2w-1), heads)."""

    @property
    def relative_position_index(self) -> Tensor:
        """Row of the table per pair of slots of the unclipped window, V * V numbers in any shape."""


@dataclass
class _Kept:
    """Biases of one attention module and what they were computed from (kept, so that its memory is not reused)."""

    signature: tuple[object, ...]
    sources: tuple[Tensor, Tensor]
    biases: dict[Hashable, Tensor]


_KEPT: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def relative_bias(attn: BiasedAttention, volume: int) -> Tensor:
    """Relative position bias of a window.

    As in the reference, a clipped window takes the first V rows and columns of the full window's index: the right
    offsets where only time is clipped, others where rows or columns are.

    The result is cached until the table or the index changes in value, place or precision. It is computed anew where
    its gradient is wanted and under ``torch.compile``.

    Args:
        attn: the attention module, with a table of ((2t-1)(2h-1)(2w-1), heads).
        volume: places of the window, V.
    Returns:
        (heads, V, V) in the table's precision; not to be written to.
    """
    return _cached(attn, volume, lambda: _gathered(attn, volume))


def window_bias(attn: BiasedAttention, layout: WindowLayout) -> Tensor:
    """Relative position bias plus shift mask, per mask pattern; cached as ``relative_bias`` is.

    A large map of many heads makes this tensor large (VideoSwin-B: 79 MB for a block of the third stage); where the
    patterns are used one after another, ``relative_bias`` with ``WindowLayout.added`` needs an eighth.

    Args:
        attn: the attention module.
        layout: windows of the map, on the table's device.
    Returns:
        (patterns, heads, V, V) in the table's precision; not to be written to.
    """
    if len(layout.ranges) == 1:
        return relative_bias(attn, layout.volume)[None]
    key = (layout.window, layout.shift)
    return _cached(attn, key, lambda: _combined(relative_bias(attn, layout.volume), layout))


def _combined(bias: Tensor, layout: WindowLayout) -> Tensor:
    return bias + layout.added(bias.dtype)[:, None]


def _cached(attn: BiasedAttention, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
    table, index = attn.relative_position_bias_table, attn.relative_position_index
    wanted = torch.is_grad_enabled() and table.requires_grad
    if wanted or torch.compiler.is_compiling() or table.is_inference() or index.is_inference():
        return compute()
    module = cast(nn.Module, attn)
    signature = tuple(
        part for tensor in (table, index) for part in (tensor.data_ptr(), tensor._version, tensor.device, tensor.dtype)
    )
    kept = _KEPT.get(module)
    if kept is None or kept.signature != signature:
        kept = _Kept(signature, (table.detach(), index.detach()), {})
        _KEPT[module] = kept
    if key not in kept.biases:
        # The cache outlives the caller's mode: no inference tensors in it.
        with torch.inference_mode(False), torch.no_grad():
            kept.biases[key] = compute()
    return kept.biases[key]


def _gathered(attn: BiasedAttention, volume: int) -> Tensor:
    index = attn.relative_position_index
    full = math.isqrt(index.numel())
    rows = index.view(full, full)[:volume, :volume].flatten()
    bias = attn.relative_position_bias_table.index_select(0, rows).view(volume, volume, -1)
    return bias.permute(2, 0, 1).contiguous()


def attend_windows(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    ranges: Sequence[tuple[int, int]] | None,
    scale: float,
    masks: Tensor | None = None,
) -> Tensor:
    """Fused attention inside windows.

    Measured on one CPU core, V = 392 (float32): a bias that is broadcast over the windows of a pattern costs 3 to 10 %
    over no bias at all and as much as a materialised one; contiguous or strided q, k, v make no difference; products
    and softmax written out window by window are as fast, over all windows at once 1.7 to 4.5 times slower. Adding the
    mask of a pattern in the call costs 1 % of a whole VideoSwin-T against keeping the sums (280 MB there).

    Args:
        q: (count, B, heads, n, d); any strides.
        k, v: (count, B, heads, V, d).
        bias: with ``ranges`` (patterns, heads, n, V), or (1, heads, n, V) beside ``masks``; without ``ranges``, one per
            window: (count, 1 or B, heads or 1, n, V).
        ranges: windows of each pattern, as in ``WindowLayout.ranges``.
        scale: factor of the scores.
        masks: (patterns, n, V), added to the bias pattern by pattern.
    Returns:
        (count, B, n, heads * d).
    """
    count, b, heads, n, _ = q.shape
    if ranges is None:
        bias = bias.expand(count, b, heads, n, k.shape[3])
        return _attend(q, k, v, bias.flatten(0, 1), scale)
    parts = []
    for i, (first, end) in enumerate(ranges):
        added = bias[i] if masks is None else bias[0] + masks[i]
        added = added.expand((end - first) * b, -1, -1, -1)
        parts.append(_attend(q[first:end], k[first:end], v[first:end], added, scale))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    count, b = q.shape[:2]
    q, k, v = (part.flatten(0, 1) for part in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=scale)
    return out.transpose(1, 2).flatten(2).unflatten(0, (count, b))
