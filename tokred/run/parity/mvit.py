"""MViT (Fan et al., ICCV 2021) with official names: the host that STTS's vectors need, and no backbone of the package.

A pyramid of blocks whose queries, keys and values are pooled by depthwise convolutions on the (T, H, W) grid; the class
token is not pooled.
"""

from __future__ import annotations

import math
import re
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.run.parity.settings import Malformed
from tokred.tokens import Grid

EPS = 1e-6
Stride = tuple[int, int, int]


class PooledAttention(nn.Module):
    """Attention with pooled queries, keys and values.

    Args:
        dim: width; head_dim: width of a head; q, kv: strides of pooling, None = not pooled; kernel: of the pooling.
    """

    def __init__(
        self, dim: int, head_dim: int, q: Stride | None, kv: Stride | None, kernel: Stride, bias: bool
    ) -> None:
        super().__init__()
        self.heads, self.head_dim = dim // head_dim, head_dim
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.proj = nn.Linear(dim, dim)
        for name, stride in (("q", q), ("k", kv), ("v", kv)):
            if stride is not None:
                pool = nn.Conv3d(head_dim, head_dim, kernel, stride, _half(kernel), groups=head_dim, bias=False)
                self.add_module(f"pool_{name}", pool)
                self.add_module(f"norm_{name}", nn.LayerNorm(head_dim, eps=EPS))

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, after = self._pool("q", q, grid)
        k, _ = self._pool("k", k, grid)
        v, _ = self._pool("v", v, grid)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(b, -1, c)), after

    def _pool(self, name: str, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        """(B, H, 1 + N, d) pooled behind the class token, and the grid after it."""
        pool, norm = getattr(self, f"pool_{name}", None), getattr(self, f"norm_{name}", None)
        if pool is None or norm is None:
            return x, grid
        maps = x[:, :, 1:].flatten(0, 1).transpose(1, 2).unflatten(2, grid)
        maps = pool(maps)
        tokens = maps.flatten(2).transpose(1, 2).unflatten(0, x.shape[:2])
        return norm(torch.cat([x[:, :, :1], tokens], dim=2)), Grid(*maps.shape[2:])


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class Block(nn.Module):
    """Attention beside a max-pooled shortcut, then an MLP that may change the width."""

    def __init__(self, dim: int, out: int, hidden: int, attn: PooledAttention, q: Stride | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = Mlp(dim, hidden, out)
        self.stride = q
        if dim != out:
            self.proj = nn.Linear(dim, out)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        branch, after = self.attn(self.norm1(x), grid)
        x = self._shortcut(x, grid) + branch
        inner = self.norm2(x)
        return (self.proj(inner) if hasattr(self, "proj") else x) + self.mlp(inner), after

    def _shortcut(self, x: Tensor, grid: Grid) -> Tensor:
        if self.stride is None or math.prod(self.stride) == 1:
            return x
        kernel = tuple(step + 1 if step > 1 else step for step in self.stride)
        maps = x[:, 1:].transpose(1, 2).unflatten(2, grid)
        maps = F.max_pool3d(maps, kernel, self.stride, tuple(length // 2 for length in kernel))
        return torch.cat([x[:, :1], maps.flatten(2).transpose(1, 2)], dim=1)


class MViT(nn.Module):
    """The blocks of an MViT with its embedding and head; sizes come from the weights.

    Args:
        weights: official state dict; strides: of the patch embedding and, per block, of queries and of keys and values.
    """

    def __init__(self, weights: dict[str, Tensor], patch: Stride, q: dict[int, Stride], kv: dict[int, Stride]) -> None:
        super().__init__()
        dim, chans, t, h, w = weights["patch_embed.proj.weight"].shape
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv3d(chans, dim, (t, h, w), patch, _half((t, h, w)))
        for name in ("cls_token", "pos_embed_class", "pos_embed_spatial", "pos_embed_temporal"):
            self.register_parameter(name, nn.Parameter(torch.empty_like(weights[name])))
        depth = 1 + max(int(m.group(1)) for name in weights if (m := re.match(r"blocks\.(\d+)\.", name)))
        self.blocks = nn.ModuleList(_block(weights, i, q.get(i), kv.get(i)) for i in range(depth))
        width = weights["norm.weight"].shape[0]
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = nn.Module()
        self.head.projection = nn.Linear(width, weights["head.projection.weight"].shape[0])

    def embed(self, clips: Tensor) -> tuple[Tensor, Grid]:
        """Clips (B, 3, T, H, W) to tokens (B, 1 + N, C) with their positions, and their grid."""
        maps = cast(Tensor, self.patch_embed.get_submodule("proj")(clips))
        grid = Grid(*maps.shape[2:])
        x = maps.flatten(2).transpose(1, 2)
        spatial, temporal = self.get_parameter("pos_embed_spatial"), self.get_parameter("pos_embed_temporal")
        if (temporal.shape[1], spatial.shape[1]) != (grid.t, grid.per_frame):
            raise Malformed(f"positions for {temporal.shape[1]} x {spatial.shape[1]} patches, the clips have {grid}")
        positions = spatial.repeat(1, grid.t, 1) + temporal.repeat_interleave(grid.per_frame, dim=1)
        front = self.get_parameter("cls_token") + self.get_parameter("pos_embed_class")
        return torch.cat([front.expand(x.shape[0], -1, -1), x + positions], dim=1), grid

    def classify(self, x: Tensor) -> Tensor:
        """Logits (B, classes) of the class token."""
        return cast(Tensor, self.head.get_submodule("projection")(self.norm(x)[:, 0]))


def _block(weights: dict[str, Tensor], i: int, q: Stride | None, kv: Stride | None) -> Block:
    name = f"blocks.{i}."
    dim = weights[f"{name}norm1.weight"].shape[0]
    hidden, out = weights[f"{name}mlp.fc1.weight"].shape[0], weights[f"{name}mlp.fc2.weight"].shape[0]
    pools = {part: weights.get(f"{name}attn.pool_{part}.weight") for part in "qkv"}
    if (pools["q"] is None) != (q is None) or any((pools[part] is None) != (kv is None) for part in "kv"):
        raise Malformed(f"block {i}: the strides and the weights of its pooling contradict each other")
    pool = next((one for one in pools.values() if one is not None), None)
    if pool is None:
        raise Malformed(f"block {i} pools nothing, so its heads are not known")
    kernel = (int(pool.shape[2]), int(pool.shape[3]), int(pool.shape[4]))
    attn = PooledAttention(dim, pool.shape[0], q, kv, kernel, f"{name}attn.qkv.bias" in weights)
    return Block(dim, out, hidden, attn, q)


def _half(kernel: Stride) -> Stride:
    return (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
