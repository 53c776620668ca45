"""VideoSwin a second time, and which token stands where: attention as one map over the whole padded grid, loops for
the rest, float64, nothing of tokred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from parity_files import normal
from torch import Tensor

Three = tuple[int, int, int]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Swin:
    """Sizes of a VideoSwin and of its clips."""

    dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: Three
    patch: Three
    clip: Three
    classes: int = 5
    hidden: int = 2
    qkv_bias: bool = True

    def config(self) -> dict[str, Any]:
        return {
            "embed_dim": self.dim,
            "depths": list(self.depths),
            "num_heads": list(self.heads),
            "window_size": list(self.window),
            "patch_size": list(self.patch),
            "mlp_ratio": float(self.hidden),
            "num_classes": self.classes,
            "patch_norm": True,
            "drop_path_rate": 0.1,
        }


def swin_weights(generator: torch.Generator, s: Swin) -> Weights:
    """Random weights under the official names."""
    w: Weights = {}
    _linear(w, generator, "backbone.patch_embed.proj", s.dim, 3 * math.prod(s.patch))
    w["backbone.patch_embed.proj.weight"] = w["backbone.patch_embed.proj.weight"].view(s.dim, 3, *s.patch)
    _norm(w, generator, "backbone.patch_embed.norm", s.dim)
    for i, (depth, heads) in enumerate(zip(s.depths, s.heads, strict=True)):
        dim = s.dim * 2**i
        for j in range(depth):
            block_weights(w, generator, f"backbone.layers.{i}.blocks.{j}.", dim, heads, s.window, s.hidden, s.qkv_bias)
        if i + 1 < len(s.depths):
            _norm(w, generator, f"backbone.layers.{i}.downsample.norm", 4 * dim)
            _linear(w, generator, f"backbone.layers.{i}.downsample.reduction", 2 * dim, 4 * dim, bias=False)
    last = s.dim * 2 ** (len(s.depths) - 1)
    _norm(w, generator, "backbone.norm", last)
    _linear(w, generator, "cls_head.fc_cls", s.classes, last)
    return w


def block_weights(
    w: Weights, generator: torch.Generator, name: str, dim: int, heads: int, window: Three, hidden: int, bias: bool
) -> None:
    """The weights of one block, written under a prefix."""
    _norm(w, generator, f"{name}norm1", dim)
    _linear(w, generator, f"{name}attn.qkv", 3 * dim, dim, bias=bias)
    offsets = math.prod(2 * length - 1 for length in window)
    w[f"{name}attn.relative_position_bias_table"] = normal(generator, offsets, heads)
    _linear(w, generator, f"{name}attn.proj", dim, dim)
    _norm(w, generator, f"{name}norm2", dim)
    _linear(w, generator, f"{name}mlp.fc1", hidden * dim, dim)
    _linear(w, generator, f"{name}mlp.fc2", dim, hidden * dim)


def attention(w: Weights, name: str, h: Tensor, heads: int, window: Three, shift: Three) -> tuple[Tensor, Tensor]:
    """Window attention of a map: output before the projection (B, T, H, W, C), and the map of weights over the padded
    grid (B, heads, P', P').

    Args:
        h: (B, T, H, W, C) after the first norm; window, shift: before clipping.
    """
    *grid, dim = h.shape[1:]
    sizes = [min(n, size) for n, size in zip(grid, window)]
    shifts = [0 if n <= size else roll for n, size, roll in zip(grid, window, shift)]
    padded = [math.ceil(n / size) * size for n, size in zip(grid, sizes)]
    missing = [more for n, m in zip(reversed(grid), reversed(padded)) for more in (0, m - n)]
    h = F.pad(h, (0, 0, *missing)).flatten(1, 3)
    qkv = applied(w, f"{name}attn.qkv", h)
    q, k, v = qkv.unflatten(-1, (3, heads, dim // heads)).permute(2, 0, 3, 1, 4)
    logits = q @ k.transpose(-1, -2) * (dim // heads) ** -0.5
    slots = [_slot(place, padded, sizes, shifts) for place in _places(padded)]
    table = w[f"{name}attn.relative_position_bias_table"]
    added = torch.full((heads, len(slots), len(slots)), -math.inf, dtype=h.dtype)
    for i, (window_i, region_i, slot_i) in enumerate(slots):
        for j, (window_j, region_j, slot_j) in enumerate(slots):
            if window_i == window_j:
                added[:, i, j] = table[_offset(slot_i, slot_j, window)] - (100.0 if region_i != region_j else 0.0)
    weights = (logits + added).softmax(-1)
    out = (weights @ v).transpose(1, 2).flatten(2).unflatten(1, padded)
    return out[:, : grid[0], : grid[1], : grid[2]], weights


def block(w: Weights, name: str, x: Tensor, heads: int, window: Three, shift: Three) -> Tensor:
    """One block on a whole map (B, T, H, W, C)."""
    out, _ = attention(w, name, normed(w, f"{name}norm1", x), heads, window, shift)
    x = x + applied(w, f"{name}attn.proj", out)
    inner = F.gelu(applied(w, f"{name}mlp.fc1", normed(w, f"{name}norm2", x)))
    return x + applied(w, f"{name}mlp.fc2", inner)


def sources(keep: Tensor, h: int, w: int) -> Tensor:
    """(B, T, h * w) position in keep (B, T, k) of the kept token nearest to each place, ties to the lower index."""
    out = []
    for kept in keep.flatten(0, 1).tolist():
        for place in range(h * w):
            row, column = divmod(place, w)
            away = [((row - p // w) ** 2 + (column - p % w) ** 2, p) for p in kept]
            out.append(kept.index(min(away)[1]))
    return torch.tensor(out).view(*keep.shape[:2], h * w)


def refill(x: Tensor, keep: Tensor, h: int, w: int) -> Tensor:
    """Kept tokens (B, T, k, C) on the whole map, (B, T, h, w, C)."""
    index = sources(keep, h, w)[..., None].expand(-1, -1, -1, x.shape[-1])
    return x.gather(2, index).unflatten(2, (h, w))


def pick(x: Tensor, keep: Tensor) -> Tensor:
    """Kept tokens (B, T, k, C) of a whole map (B, T, h, w, C)."""
    return x.flatten(2, 3).gather(2, keep[..., None].expand(-1, -1, -1, x.shape[-1]))


def merge(w: Weights, name: str, x: Tensor) -> Tensor:
    """Patch merging of a whole map."""
    _, _, h, width, _ = x.shape
    x = F.pad(x, (0, 0, 0, width % 2, 0, h % 2))
    x = torch.cat([x[:, :, i::2, j::2] for j in range(2) for i in range(2)], dim=-1)
    return applied(w, f"{name}reduction", normed(w, f"{name}norm", x))


def pooled_keys(w: Weights, name: str, x: Tensor, heads: int) -> Tensor:
    """Head-averaged keys of a block's input map, averaged over the existing members of each 2 x 2 group."""
    keys = applied(w, f"{name}attn.qkv", normed(w, f"{name}norm1", x)).chunk(3, dim=-1)[1]
    mean = keys.unflatten(-1, (heads, -1)).mean(-2)  # (B, T, H, W, d)
    _, _, h, width, _ = mean.shape
    rows = [
        torch.stack([mean[:, :, r : r + 2, c : c + 2].flatten(2, 3).mean(2) for c in range(0, width, 2)], dim=2)
        for r in range(0, h, 2)
    ]
    return torch.stack(rows, dim=2)


def embedded(w: Weights, clips: Tensor, shape: Swin) -> Tensor:
    """Patch tokens (B, T, H, W, C) of clips."""
    missing = [-n % step for n, step in zip(shape.clip, shape.patch)]
    clips = F.pad(clips, (0, missing[2], 0, missing[1], 0, missing[0]))
    name = "backbone.patch_embed."
    x = F.conv3d(clips, w[f"{name}proj.weight"], w[f"{name}proj.bias"], stride=shape.patch)
    return normed(w, f"{name}norm", x.permute(0, 2, 3, 4, 1))


def _places(grid: Sequence[int]) -> list[Three]:
    return [(t, h, w) for t in range(grid[0]) for h in range(grid[1]) for w in range(grid[2])]


def _slot(place: Three, padded: Sequence[int], sizes: Sequence[int], shifts: Sequence[int]) -> tuple[Any, Any, int]:
    """Window, region of the shift mask, and slot inside the window of a place."""
    rolled = [(p - roll) % n for p, roll, n in zip(place, shifts, padded)]
    window = tuple(p // size for p, size in zip(rolled, sizes))
    region = tuple(
        (p >= n - size) + (p >= n - roll) if roll else 0 for p, n, size, roll in zip(rolled, padded, sizes, shifts)
    )
    t, h, w = (p % size for p, size in zip(rolled, sizes))
    return window, region, (t * sizes[1] + h) * sizes[2] + w


def _offset(query: int, key: int, window: Three) -> int:
    """Row of the bias table; slots are read as slots of the unclipped window, as the official code does."""
    _, h, w = window
    away = [(query // (h * w), query // w % h, query % w), (key // (h * w), key // w % h, key % w)]
    t, y, x = (a - b + length - 1 for a, b, length in zip(*away, window))
    return (t * (2 * h - 1) + y) * (2 * w - 1) + x


def _linear(w: Weights, generator: torch.Generator, name: str, out: int, dim: int, bias: bool = True) -> None:
    w[f"{name}.weight"] = (normal(generator, out, dim) * dim**-0.5).float().double()
    if bias:
        w[f"{name}.bias"] = (0.3 * normal(generator, out)).float().double()


def _norm(w: Weights, generator: torch.Generator, name: str, dim: int) -> None:
    w[f"{name}.weight"] = (1 + 0.2 * normal(generator, dim)).float().double()
    w[f"{name}.bias"] = (0.2 * normal(generator, dim)).float().double()


def normed(w: Weights, name: str, x: Tensor) -> Tensor:
    """A norm by its name."""
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)


def applied(w: Weights, name: str, x: Tensor) -> Tensor:
    """A linear layer by its name."""
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))
