"""Semantic tokens inside windows: the layers of STViT-R's Swin form, named as in official checkpoints.

They differ from the official code in projecting keys and values once per token of the map and of the windows' own
tokens (official: once per enlarged window, which overlap), and in windows whose overlap follows from the map instead
of being fixed for 14 x 14.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tokred.backbones.window_layout import relative_index
from tokred.semantic import INIT_STD, LAYER_SCALE, CrossAttention, CrossLayer, LayerSize, pool_cells

MARGIN = 3
"""Rows and columns that an enlarged window has more than a window (official: 10 for 7)."""


class BiasedCrossAttention(CrossAttention):
    """Attention of side x side tokens among themselves with a learned bias per offset."""

    def __init__(self, size: LayerSize, bias: bool, side: int) -> None:
        super().__init__(size, bias)
        self.side = side
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * side - 1) ** 2, size.heads))

    def initialise(self, generator: torch.Generator) -> None:
        """Start values of the bias."""
        nn.init.trunc_normal_(self.relative_position_bias_table, std=INIT_STD, generator=generator)

    def forward(self, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        index = relative_index((1, self.side, self.side)).to(x.device)
        own = self.relative_position_bias_table[index].permute(2, 0, 1)
        return super().forward(x, y, own.to(x.dtype) if bias is None else own + bias)


def biased_layer(size: LayerSize, side: int, *, bias: bool = True, scale: float = LAYER_SCALE) -> CrossLayer:
    """A layer of side x side tokens among themselves with a learned bias per offset."""
    layer = CrossLayer(size, bias=bias, scale=scale)
    layer.attn = BiasedCrossAttention(size, bias, side)
    return layer


class DepthwisePosition(nn.Module):
    """A depthwise 3 x 3 convolution on the tokens of each window, added to them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, x: Tensor, side: int) -> Tensor:
        """Tokens (R, side * side, C)."""
        maps = x.transpose(1, 2).unflatten(2, (side, side))
        return x + cast(Tensor, self.proj(maps)).flatten(2).transpose(1, 2)


class WindowLayer(CrossLayer):
    """The first generating layer inside windows: each window's tokens look at themselves and at the enlarged window.

    Args:
        side: tokens per side of a window.
        window: side of a window in image tokens.
        shortcut: whether the pooled tokens stay as a residual (the released runs have none).
        position: whether a depthwise convolution is added to the pooled tokens.
    """

    def __init__(
        self,
        size: LayerSize,
        side: int,
        window: int,
        *,
        shortcut: bool = True,
        position: bool = False,
        bias: bool = True,
        scale: float = LAYER_SCALE,
    ) -> None:
        super().__init__(size, bias=bias, scale=scale)
        self.side = side
        self.window = window
        self.shortcut = shortcut
        if position:
            self.conv_pos = DepthwisePosition(size.dim)

    def initial(self, maps: Tensor, given: Tensor | None = None) -> Tensor:
        """What the tokens of each window start from, (B, windows, side * side, C): pooled, or given.

        Args:
            maps: image tokens (B, rows, columns, C); given: (B, M, C) in raster order, instead of pooled ones.
        """
        h, w = (length // self.window for length in maps.shape[1:3])
        if given is None:
            x = pool_cells(to_windows(maps, h, w).flatten(0, 1), self.side)
        else:
            raster = given.unflatten(1, (h * self.side, w * self.side))
            x = to_windows(raster, h, w).flatten(0, 1).flatten(1, 2)
        position = getattr(self, "conv_pos", None)
        if position is not None:
            x = position(x, self.side)
        return x.unflatten(0, (maps.shape[0], h * w))

    def keys(self, maps: Tensor, start: Tensor) -> Tensor:
        """What each window looks at: (B, windows, side * side + K, .) from maps (B, rows, columns, .), start (B,
        windows, side * side, .)."""
        index = enlarged(maps.shape[1], maps.shape[2], self.window).to(maps.device)
        around = maps.flatten(1, 2)[:, index]  # (B, windows, K, .)
        return torch.cat([start, around], dim=2)

    def forward(self, x: Tensor, y: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Image tokens x (B, rows, columns, C) to semantic tokens (B, M, C) in raster order.

        Args:
            y: tokens (B, M, C) in raster order to start from, instead of pooled ones.
        """
        start = self.initial(x, y)
        inner = self.norm1(start)
        kv = self.keys(self.attn.kv(self.norm1(x)), self.attn.kv(inner))
        attended = self.attn.mix(self.attn.q(inner), kv, bias)
        out = self.finish(start if self.shortcut else torch.zeros_like(start), attended)
        h, w = (length // self.window for length in x.shape[1:3])
        return from_windows(out.unflatten(2, (self.side, self.side)), h, w).flatten(1, 2)


def in_groups(layer: nn.Module, x: Tensor, columns: int, side: int) -> Tensor:
    """A layer on each side x side group of tokens (B, M, C) in raster order with so many columns."""
    maps = x.unflatten(1, (-1, columns))
    h, w = maps.shape[1] // side, columns // side
    groups = to_windows(maps, h, w)
    out = layer(groups.flatten(0, 1).flatten(1, 2)).unflatten(1, (side, side))
    return from_windows(out.unflatten(0, (x.shape[0], h * w)), h, w).flatten(1, 2)


def to_windows(maps: Tensor, h: int, w: int) -> Tensor:
    """Maps (B, rows, columns, C) in h x w windows, row by row: (B, h * w, rows / h, columns / w, C)."""
    return maps.unflatten(2, (w, -1)).unflatten(1, (h, -1)).transpose(2, 3).flatten(1, 2)


def from_windows(windows: Tensor, h: int, w: int) -> Tensor:
    """The inverse of ``to_windows``."""
    return windows.unflatten(1, (h, w)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def enlarged(rows: int, columns: int, window: int) -> Tensor:
    """(windows, K) int64: the places of each window with its surroundings, as far as the map goes.

    Windows of window + 3 places (at most the map) are spread evenly from one end to the other: 0-9 and 4-13 of 14.
    """
    axes = []
    for length in (rows, columns):
        count, wide = length // window, min(length, window + MARGIN)
        starts = [i * (length - wide) // max(count - 1, 1) for i in range(count)]
        axes.append(torch.tensor(starts)[:, None] + torch.arange(wide))
    down, across = axes
    places = down[:, None, :, None] * columns + across[None, :, None, :]
    return places.flatten(2).flatten(0, 1)
