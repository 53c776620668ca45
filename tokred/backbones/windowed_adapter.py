"""What all hosts with shifted windows share: blocks on whole and on reduced grids, patch merging, classification."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.adapter import Adapter, Attended, Crossed, Fed, Unsupported, cross_to, mean_tokens
from tokred.backbones.attention import shrink_pixels
from tokred.backbones.geometry import Geometry
from tokred.backbones.parts import BlockParts
from tokred.backbones.windowed import Projections, WindowStatistics, attend_kept, attend_whole, heads_of
from tokred.backbones.windows import window_layout
from tokred.cover import Cover
from tokred.gather import take
from tokred.reducer import SmallerInput
from tokred.saliency import RowsWanted
from tokred.tokens import Grid, Tokens

Unary = Callable[[Tensor], Tensor]


class Parts(NamedTuple):
    """A block in parts: norms, attention and its scale on q k^T, MLP, what stands around both branches (stochastic
    depth), window."""

    norm1: Unary
    attn: Projections
    scale: float
    norm2: Unary
    mlp: Unary
    branch: Unary
    window: tuple[int, int, int]
    shifted: bool


class WindowedAdapter(Adapter):
    """Reads hosts with windows. On the tokens' grid every place is filled, so windows are those of the dense host.

    Args:
        skip_replicas: leave out the queries of places whose token was dropped (same tokens, fewer multiply-adds);
            False computes them and throws them away, as published.
    """

    def __init__(self, skip_replicas: bool = True) -> None:
        self.skip_replicas = skip_replicas

    def with_form(self, skip_replicas: bool) -> Adapter:
        return type(self)(skip_replicas)

    @abstractmethod
    def parts(self, block: nn.Module) -> Parts:
        """The block taken apart."""

    @abstractmethod
    def patches(self, model: nn.Module, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Clips (B, 3, T, H, W) to patch tokens (B, P, C) and their grid."""

    @abstractmethod
    def merge(self, model: nn.Module, stage: int, x: Tensor, grid: Grid) -> Tensor:
        """Patch merging behind a stage: (B, P, C) on the grid to (B, P', C')."""

    @abstractmethod
    def final_norm(self, model: nn.Module) -> Unary:
        """The norm behind the last block."""

    @abstractmethod
    def head(self, model: nn.Module) -> Unary:
        """Pooled features (B, C) to logits."""

    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        def forward(x: Tensor) -> Tensor:
            return x

        return forward(*args, **{"x" if name == "clips" else name: value for name, value in kwargs.items()})

    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        if smaller is not None:
            pixels = _shrink(pixels, self.geometry(model), smaller)
        x, grid = self.patches(model, pixels)
        cover = Cover.whole(grid, x.shape[0], x.device, self.geometry(model).stages[0].window)
        return Tokens(x, grid, prefix=0, groups=grid.t, class_token=False, cover=cover)

    def variant(self, block: nn.Module) -> str:
        return "shifted" if self.parts(block).shifted else "plain"

    def example(self, model: nn.Module, index: int, generator: torch.Generator) -> Tokens:
        geometry = self.geometry(model)
        stage = geometry.stages[geometry.stage_of(index)]
        grid = Grid(*(length + 1 for length in stage.window))  # padded and, where it shifts, shifted on every axis
        x = torch.randn(1, grid.patches, stage.dim, generator=generator)
        return Tokens(x, grid, groups=grid.t, cover=Cover.whole(grid, 1, x.device, stage.window))

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        parts, cover = self.parts(block), _cover(tokens)
        attn = parts.attn
        layout = window_layout(tokens.grid, parts.window, parts.shifted, tokens.x.device)
        qkv = attn.qkv(parts.norm1(tokens.x))
        skip = self.skip_replicas and not cover.complete and cover.home is not None
        # Ragged windows need counts on the host: not while a graph is being captured.
        form = attend_kept if skip and not torch.compiler.is_compiling() else attend_whole
        out = attn.proj(form(attn, qkv, cover, layout, parts.scale))
        q, k, v = (heads_of(part, attn.num_heads) for part in qkv.chunk(3, dim=-1))
        statistics = WindowStatistics(attn, cover, layout)
        return Attended(tokens.x + parts.branch(out), q, k, v, parts.scale, statistics)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        parts = self.parts(block)
        branch = parts.mlp(parts.norm2(x))
        return Fed(x + parts.branch(branch), branch)

    def token_parts(self, block: nn.Module) -> BlockParts:
        raise Unsupported(
            f"the blocks of {self.name} are not computed token by token here: their windows reach over several frames "
            "and need them whole, so no token can be taken over from the frame before"
        )

    def run(self, block: nn.Module, tokens: Tokens) -> Tensor:
        return self.feed(block, self.attend(block, tokens, None).x).x

    def cross(self, model: nn.Module, index: int, tokens: Tokens) -> Crossed | None:
        geometry, cover = self.geometry(model), _cover(tokens)
        if not geometry.ends_stage(index):
            return None
        full = tokens.x if cover.complete else take(tokens.x, cover.fill)
        merged = self.merge(model, geometry.stage_of(index), full, tokens.grid)
        return cross_to(tokens, merged, geometry.stages[geometry.stage_of(index + 1)].window)

    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        return mean_tokens(self.final_norm(model)(tokens.x), tokens, pool)

    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        return self.head(model)(features)


def _cover(tokens: Tokens) -> Cover:
    if tokens.cover is None:
        raise ValueError("a host with windows needs to know the places of its tokens (Tokens.cover)")
    return tokens.cover


def _shrink(pixels: Tensor, geometry: Geometry, smaller: SmallerInput) -> Tensor:
    """Fewer tubelets and smaller frames."""
    kt, kh, kw = geometry.kernel
    if smaller.frames is not None:
        wanted = [kt * t + i for t in smaller.frames for i in range(kt)]
        pixels = F.pad(pixels, (0, 0, 0, 0, 0, -pixels.shape[2] % kt))  # to whole tubelets, as the patch embedding does
        if pixels.shape[2] <= max(wanted):
            raise ValueError(
                f"a smaller input was planned for {geometry.grid.t} tubelets of {kt} frames, the clips have "
                f"{pixels.shape[2]} frames"
            )
        pixels = pixels[:, :, wanted]
    return shrink_pixels(pixels, smaller.grid.h * kh, smaller.grid.w * kw)
