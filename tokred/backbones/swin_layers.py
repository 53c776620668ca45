"""The parts of the Video Swin Transformer: embedding, window attention, block, merging; tokens in raster order.

They differ from the official code in fused attention with a cached bias (``windows``), in projecting queries, keys and
values before the padding instead of after it (padding then holds the bias: the same numbers, fewer multiply-adds), and
in writing the tubelet embedding as reshape + linear (also on the meta device).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.videomae import DropPath, Mlp
from tokred.backbones.windows import Window, attend_windows, relative_bias, relative_index, window_layout
from tokred.tokens import Grid

NORM_EPS = 1e-5


class PatchEmbed(nn.Module):
    """Clips (B, 3, T, H, W) to patch tokens (B, P, C), t-major; ends are zero-padded to whole patches."""

    def __init__(self, patch_size: Window, in_chans: int, dim: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS) if norm else nn.Identity()

    def grid_of(self, clips: Tensor) -> Grid:
        """The patch grid of clips (B, 3, T, H, W)."""
        if clips.ndim != 5 or clips.shape[1] != self.proj.in_channels or 0 in clips.shape[2:]:
            raise ValueError(f"clips must be (B, {self.proj.in_channels}, T, H, W), got {tuple(clips.shape)}")
        lengths = zip(clips.shape[2:], self.proj.kernel_size, strict=True)
        return Grid(*(math.ceil(length / step) for length, step in lengths))

    def forward(self, clips: Tensor) -> Tensor:
        grid, kernel = self.grid_of(clips), self.proj.kernel_size
        t, h, w = grid
        b, c = clips.shape[:2]
        missing = [n * step - length for n, step, length in zip(grid, kernel, clips.shape[2:], strict=True)]
        if any(missing):
            clips = F.pad(clips, (0, missing[2], 0, missing[1], 0, missing[0]))
        x = clips.reshape(b, c, t, kernel[0], h, kernel[1], w, kernel[2]).permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = F.linear(x.reshape(b, t * h * w, c * math.prod(kernel)), self.proj.weight.flatten(1), self.proj.bias)
        return cast(Tensor, self.norm(x))


class WindowAttention(nn.Module):
    """Multi-head attention inside windows, with a learned bias per offset of query and key.

    Args:
        dim: width C; num_heads: heads; qkv_bias: whether queries, keys and values carry a bias.
        window: lengths (t, h, w) before clipping.
    """

    relative_position_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: Window, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.window_size = window
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        offsets = math.prod(2 * length - 1 for length in window)
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_index(window), persistent=False)

    def heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``qkv`` gave, (..., N, 3C), as queries, keys and values (..., heads, N, d): views."""
        parts = qkv.unflatten(-1, (3, self.num_heads, self.head_dim)).transpose(-4, -2)  # (..., heads, 3, N, d)
        q, k, v = parts.unbind(-3)
        return q, k, v

    def forward(self, x: Tensor, grid: Grid, shifted: bool) -> Tensor:
        layout = window_layout(grid, self.window_size, shifted, x.device)
        # Moving C numbers per token is cheaper than 3C, unless that means projecting padding too.
        padded = layout.pads.numel() > 0
        q, k, v = self.heads(layout.split(self.qkv(x), self.qkv.bias) if padded else self.qkv(layout.split(x)))
        bias = relative_bias(self, layout.volume)[None]
        masks = layout.added(bias.dtype) if len(layout.ranges) > 1 else None
        out = attend_windows(q, k, v, bias, layout.ranges, self.scale, masks)
        return cast(Tensor, self.proj(layout.join(out)))


class SwinBlock(nn.Module):
    """Pre-norm block of window attention and MLP; ``shifted`` moves the windows by half their size."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window: Window,
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = WindowAttention(dim, num_heads, window, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x), grid, self.shifted))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Two by two neighbours of a frame to one token of twice the width; odd maps are zero-padded at their ends."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim, eps=NORM_EPS)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        b, _, c = x.shape
        merged = Grid(grid.t, math.ceil(grid.h / 2), math.ceil(grid.w / 2))
        x = x.view(b, grid.t, grid.h, grid.w, c)
        if (merged.h, merged.w) != (grid.h // 2, grid.w // 2):
            x = F.pad(x, (0, 0, 0, 2 * merged.w - grid.w, 0, 2 * merged.h - grid.h))
        # Channels of (row, column): (even, even), (odd, even), (even, odd), (odd, odd).
        x = x.view(b, merged.t, merged.h, 2, merged.w, 2, c).permute(0, 1, 2, 4, 5, 3, 6)
        return self.reduction(self.norm(x.reshape(b, merged.patches, 4 * c))), merged


class Stage(nn.Module):
    """Blocks on one map, and the merging to the next one (None in the last stage)."""

    def __init__(self, blocks: Sequence[SwinBlock], downsample: PatchMerging | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
