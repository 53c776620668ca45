"""The parts of ViTDet that the replay of Eventful Transformers needs: windows, relative and resized positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.backbones.parts import BlockParts
from tokred.run.parity.settings import Malformed
from tokred.streaming.pooling import Pooling
from tokred.tokens import Grid


def resized(table: Tensor, side: tuple[int, ...], grid: tuple[int, ...], prefix: int) -> Tensor:
    """A table of positions (1, prefix + P, C) of a grid of ``side`` for another grid, bicubic; prefix as it is."""
    front, patches = table[:, :prefix], table[:, prefix:]
    if tuple(side) == tuple(grid):
        return table
    if len(side) != 2 or len(grid) != 2:
        raise Malformed(f"positions of {side} cannot be resized to {grid}")
    square = patches.reshape(1, *side, -1).permute(0, 3, 1, 2)
    other = F.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([front, other.flatten(2).transpose(1, 2)], dim=1)


class RelativePosition:
    """Decomposed relative positions: logits get one term by row distance and one by column distance.

    Args:
        rows, columns: tables (2 * side - 1, d), resized to the area; area: (rows, columns) of tokens that
            attend to each other; pool: keys are averaged over squares of that side, and so are the tables.
    """

    def __init__(self, rows: Tensor, columns: Tensor, area: tuple[int, int], pool: int) -> None:
        self.area = area
        self.tables = tuple(_distances(t, n, pool) for t, n in zip((rows, columns), area, strict=True))

    @property
    def keys(self) -> tuple[int, int]:
        """Rows and columns of keys."""
        return self.tables[0].shape[1], self.tables[1].shape[1]

    def __call__(self, q: Tensor) -> Tensor:
        """Queries (B, H, N, d), unscaled, to (B, H, N, M)."""
        b, heads, n, width = q.shape
        q = q.reshape(b, heads, *self.area, width)
        by_row = torch.einsum("bhyxd,ykd->bhyxk", q, self.tables[0])
        by_column = torch.einsum("bhyxd,xkd->bhyxk", q, self.tables[1])
        return (by_row[..., :, None] + by_column[..., None, :]).reshape(b, heads, n, -1)


class Windows:
    """Attention inside windows cut from all tokens; places beyond the grid hold the bias of qkv.

    Args:
        parts: the block, with its relative positions of one window; grid: (rows, columns); size: of a window.
        bias: (3 * H * d,) of the qkv layer; pool: side of the squares that keys and values are averaged over.
    """

    def __init__(self, parts: BlockParts, grid: tuple[int, int], size: tuple[int, int], bias: Tensor, pool: int = 1):
        self.parts, self.grid, self.size, self.bias = parts, grid, size, bias
        self.pooling = Pooling(pool, Grid(1, *size)) if pool > 1 else None
        self.counts = tuple(-(-n // s) for n, s in zip(grid, size, strict=True))

    @property
    def tokens(self) -> int:
        """Places in all windows, padding included."""
        return self.counts[0] * self.size[0] * self.counts[1] * self.size[1]

    @property
    def products(self) -> int:
        """Pairs of a query and a key in all windows."""
        return self.tokens * (self.size[0] * self.size[1] if self.pooling is None else self.pooling.count)

    def __call__(self, qkv: Tensor) -> Tensor:
        """(B, N, 3 * H * d) to (B, N, H * d)."""
        b, _, width = qkv.shape
        (h, w), (sy, sx), (ny, nx) = self.grid, self.size, self.counts
        padded = self.bias.expand(b, ny * sy, nx * sx, width).clone()
        padded[:, :h, :w] = qkv.reshape(b, h, w, width)
        cut = padded.reshape(b, ny, sy, nx, sx, width).transpose(2, 3).reshape(b * ny * nx, sy * sx, width)
        q, k, v = self.parts.split(cut)
        if self.pooling is not None:
            k, v = self.pooling(k), self.pooling(v)
        mask = None if self.parts.bias is None else self.parts.bias(q)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.parts.scale).transpose(1, 2).flatten(2)
        out = out.reshape(b, ny, nx, sy, sx, -1).transpose(2, 3).reshape(b, ny * sy, nx * sx, -1)
        return out[:, :h, :w].flatten(1, 2)


def _distances(table: Tensor, side: int, pool: int) -> Tensor:
    """(2 * s - 1, d) to (side, side / pool, d): the vector of each distance from a query to a key.

    As in the official code, the vectors are laid out as a picture of s queries by s keys, and that is resized.
    """
    places = torch.arange((table.shape[0] + 1) // 2)
    vectors = table[places[:, None] - places[None] + len(places) - 1]
    if len(places) != side:
        picture = vectors.permute(2, 0, 1)[None]
        picture = F.interpolate(picture, size=(side, side), mode="bicubic", align_corners=False)
        vectors = picture[0].permute(1, 2, 0)
    return vectors.reshape(side, side // pool, pool, -1).mean(dim=2)
