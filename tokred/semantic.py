"""Semantic tokens: a few tokens per frame that take the place of its patches (STViT, CVPR 2023, section 3).

The parts: the cross layer, the pooling that starts the tokens, and their generation. Named as in official checkpoints.
Notation: X (B, N, C) image tokens; S (B, M, C) semantic tokens; G learned centres.

They differ from the official code in fused attention, and in layer scale that is multiplied and added in float32 or
wider.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.precision import wide
from tokred.ranking import is_exporting

NORM_EPS = 1e-5
LAYER_SCALE = 1e-5
"""Layer scale at the start of training (official code)."""

INIT_STD = 0.02


class LayerSize(NamedTuple):
    """Sizes of a layer.

    Args:
        dim: width C; heads: attention heads; head_dim: width of each; hidden: width inside the MLP.
    """

    dim: int
    heads: int
    head_dim: int
    hidden: int

    def macs(self, queries: int, keys: int) -> int:
        """Multiply-adds of a cross layer, norms included with 5 per element.

        Args:
            queries: tokens M that go through the layer; keys: tokens K that they look at.
        """
        c, inner = self.dim, self.heads * self.head_dim
        attention = 2 * queries * c * inner + 2 * keys * c * inner + 2 * queries * keys * inner
        return attention + 2 * queries * c * self.hidden + 5 * c * (2 * queries + keys)


class CrossAttention(nn.Module):
    """Attention of queries from one set of tokens to keys and values of another."""

    def __init__(self, size: LayerSize, bias: bool) -> None:
        super().__init__()
        inner = size.heads * size.head_dim
        self.heads = size.heads
        self.q = nn.Linear(size.dim, inner, bias=bias)
        self.kv = nn.Linear(size.dim, 2 * inner, bias=bias)
        self.proj = nn.Linear(inner, size.dim)

    def split(self, x: Tensor) -> Tensor:
        """(..., N, heads * d) as (..., heads, N, d): a view."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def mix(self, q: Tensor, kv: Tensor, bias: Tensor | None = None) -> Tensor:
        """Projected queries (..., M, C) and keys with values (..., K, 2C) to the output (..., M, C).

        Args:
            bias: added to the logits, broadcastable to (..., heads, M, K).
        """
        k, v = (self.split(part) for part in kv.chunk(2, dim=-1))
        out = F.scaled_dot_product_attention(self.split(q), k, v, attn_mask=bias)
        return cast(Tensor, self.proj(out.transpose(-3, -2).flatten(-2)))

    def forward(self, x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.mix(self.q(x), self.kv(y), bias)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x))))


class CrossLayer(nn.Module):
    """Pre-norm layer in which tokens x look at tokens y: both pass the same first norm, the MLP sees x alone.

    Args:
        size: its sizes; bias: of queries, keys and values; scale: layer scale at the start.
    """

    def __init__(self, size: LayerSize, *, bias: bool = True, scale: float = LAYER_SCALE) -> None:
        super().__init__()
        self.first_scale = scale
        self.norm1 = nn.LayerNorm(size.dim, eps=NORM_EPS)
        self.attn = CrossAttention(size, bias)
        self.norm2 = nn.LayerNorm(size.dim, eps=NORM_EPS)
        self.mlp = Mlp(size.dim, size.hidden)
        self.layer_scale_1 = nn.Parameter(torch.full((size.dim,), float(scale)))
        self.layer_scale_2 = nn.Parameter(torch.full((size.dim,), float(scale)))

    def initialise(self, generator: torch.Generator) -> None:
        """Start values of the layer scale."""
        with torch.no_grad():
            self.layer_scale_1.fill_(self.first_scale)
            self.layer_scale_2.fill_(self.first_scale)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Residual and layer scale of an attention output (B, M, C), then the MLP.

        Args:
            x: what the residual starts from; zeros for none.
        """
        x = add_scaled(x, self.layer_scale_1, attended)
        return add_scaled(x, self.layer_scale_2, self.mlp(self.norm2(x)))

    def forward(self, x: Tensor, y: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Tokens x (B, M, C) after looking at y (B, K, C), None = at themselves.

        Args:
            bias: added to the logits, broadcastable to (B, heads, M, K).
        """
        inner = self.norm1(x)
        return self.finish(x, self.attn(inner, inner if y is None else self.norm1(y), bias))


class SemanticTokens(nn.Module):
    """Semantic tokens of whole frames: pooled, then by cross layers.

    Args:
        size: sizes of the layers; side: tokens per side of a frame; count: layers, 2 or more.
        frames: frames T of the learned centres G, which are added before the second layer; 0 = no centres.
        keys: what the first layer looks at: "clip" = all image tokens, "frame" = those of the own frame, "window" = as
            ``first`` has it.
        scale: layer scale at the start.
        first: the first layer, from maps (B * T, rows, columns, C) to their tokens in raster order; None = a cross
            layer that starts from pooled tokens.
    """

    def __init__(
        self,
        size: LayerSize,
        side: int,
        count: int,
        frames: int,
        keys: str = "clip",
        scale: float = LAYER_SCALE,
        first: CrossLayer | None = None,
    ) -> None:
        super().__init__()
        self.side = side
        self.keys = keys
        later = [CrossLayer(size, scale=scale) for _ in range(count - 1)]
        self.layers = nn.ModuleList([CrossLayer(size, scale=scale) if first is None else first, *later])
        self.centres = nn.Parameter(torch.empty(frames, side * side, size.dim)) if frames else None

    def initialise(self, generator: torch.Generator) -> None:
        """Start values of the centres."""
        if self.centres is not None:
            nn.init.normal_(self.centres, std=INIT_STD, generator=generator)

    def steps(self, frames: Tensor) -> Iterator[Tensor]:
        """The tokens after pooling and after each layer, (B, T * side * side, C) frame by frame.

        Args:
            frames: image tokens (B, T, rows, columns, C).
        """
        b, t, rows, columns, c = frames.shape
        made = t * self.side * self.side  # said in numbers: an empty batch leaves nothing to infer them from
        image = frames.reshape(b, t * rows * columns, c)
        start = pool_cells(frames.flatten(0, 1), self.side)  # (B * T, side * side, C)
        x = start.reshape(b, made, c)
        yield x
        first, *others = cast(list[CrossLayer], list(self.layers))
        if self.keys == "window":
            x = first(frames.flatten(0, 1)).reshape(b, made, c)
        elif self.keys == "frame":
            x = first(start, frames.flatten(0, 1).flatten(1, 2)).reshape(b, made, c)
        else:
            x = first(x, image)
        yield x
        for i, layer in enumerate(others):
            x = layer(x if i else x + self.shift(t), torch.cat([x, image], dim=1))
            yield x

    def shift(self, t: int) -> Tensor | float:
        """G for clips of t frames, (T * side * side, C): resampled linearly over time where t is not its own."""
        if self.centres is None:
            return 0.0
        centres: Tensor = self.centres
        if t != centres.shape[0]:
            series = F.interpolate(wide(centres).permute(1, 2, 0), size=t, mode="linear", align_corners=False)
            centres = series.permute(2, 0, 1).to(centres.dtype)
        return centres.flatten(0, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Image tokens (B, T, rows, columns, C) to semantic tokens (B, T * side * side, C)."""
        x = frames
        for x in self.steps(frames):  # noqa: B007
            pass
        return x


def pool_cells(maps: Tensor, side: int) -> Tensor:
    """Maximum over side x side cells of maps (R, rows, columns, C): (R, side * side, C).

    Cell i covers floor(i n / side) .. ceil((i + 1) n / side) - 1 of n rows: neighbours overlap where side does not
    divide n.
    """
    if is_exporting():  # ONNX has no adaptive pooling; a maximum is the same along one axis after the other
        for axis in (1, 2):
            n = maps.shape[axis]
            cells = [(i * n // side, -(-(i + 1) * n // side)) for i in range(side)]
            maps = torch.cat(
                [maps.narrow(axis, first, end - first).amax(axis, keepdim=True) for first, end in cells], dim=axis
            )
        return maps.flatten(1, 2)
    pooled = F.adaptive_max_pool2d(maps.permute(0, 3, 1, 2), side)
    return pooled.flatten(2).transpose(1, 2)


def own_cells(rows: int, columns: int, side: int) -> Tensor:
    """(rows * columns,) int64: the one cell that each patch of a frame is traced to; of overlapping cells the one that
    holds its centre, so that none stays empty and order is kept."""
    row, column = ((2 * torch.arange(length) + 1) * side // (2 * length) for length in (rows, columns))
    return (row[:, None] * side + column).flatten()


def add_scaled(x: Tensor, scale: Tensor, branch: Tensor) -> Tensor:
    """Residual x plus layer scale times branch, (B, N, C) both, rounded once: a product with 1e-5 has few digits in
    float16."""
    return (wide(x) + wide(scale) * wide(branch)).to(x.dtype)


def run_like(module: nn.Module, x: Tensor, *more: Tensor) -> Tensor:
    """``module(x, *more)`` in the number format of x, whatever that of its parameters; the result has it too."""
    parameters = dict(module.named_parameters())
    if all(parameter.dtype == x.dtype for parameter in parameters.values()):
        return cast(Tensor, module(x, *more)).to(x.dtype)
    like = {name: parameter.to(x.dtype) for name, parameter in parameters.items()}
    return cast(Tensor, torch.func.functional_call(module, like, (x, *more))).to(x.dtype)
