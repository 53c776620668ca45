"""The adapter for the project's own factorised ViViT: reducers act in its spatial model, step by step.

A step is one tubelet: B clips of T' steps pass the blocks as B * T' samples. Stateful methods get the steps one after
another, as one stream per clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tokred.backbones.adapter import Adapter, Attended, Fed
from tokred.backbones.attention import attend, shrink_pixels
from tokred.backbones.geometry import Geometry
from tokred.backbones.guards import refuse_hooks, refuse_overrides, require_type
from tokred.backbones.masked import attend_masked
from tokred.backbones.parts import BlockParts
from tokred.backbones.vivit import ViViT, ViViTBlock
from tokred.reducer import SmallerInput
from tokred.saliency import RowsWanted
from tokred.tokens import Grid, Tokens


class ViViTAdapter(Adapter):
    """Reads ``ViViT``. Video clips (B, C, T, H, W)."""

    name = "tokred ViViT"

    def accepts(self, model: nn.Module) -> bool:
        return isinstance(model, ViViT)

    def check(self, model: nn.Module) -> None:
        refuse_overrides(model, ViViT, ("forward", "forward_features", "__call__"), type(model).__name__)
        for i, block in enumerate(self.blocks(model)):
            require_type(block, (ViViTBlock,), f"block {i}")
            refuse_overrides(block, ViViTBlock, ("forward", "__call__"), f"block {i}")
            refuse_hooks(block, f"block {i}")

    def geometry(self, model: nn.Module) -> Geometry:
        vivit = _vivit(model)
        block = cast(ViViTBlock, self.blocks(model)[0])
        hidden = block.mlp_1.out_features
        temporal = len(vivit.temporal_model.backbone.blocks)
        return Geometry(
            depth=len(self.blocks(model)),
            dim=vivit.dim,
            heads=block.num_heads,
            head_dim=block.head_dim,
            mlp_hidden=hidden,
            grid=Grid(1, vivit.grid.h, vivit.grid.w),
            prefix=1,
            classes=vivit.num_classes,
            kernel=cast(tuple[int, int, int], vivit.embedding.conv.kernel_size),
            in_chans=vivit.in_chans,
            steps=vivit.grid.t,
            tail=_encoder_macs(vivit.grid.t + 1, vivit.dim, hidden, temporal),
        )

    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        def forward(clips: Tensor) -> Tensor:
            return clips

        return forward(*args, **kwargs)

    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        vivit = _vivit(model)
        _, kh, kw = vivit.embedding.conv.kernel_size
        if smaller is not None:
            pixels = shrink_pixels(pixels, smaller.grid.h * kh, smaller.grid.w * kw)
        rows, columns = pixels.shape[3] // kh, pixels.shape[4] // kw
        x = vivit.spatial_model.embed(vivit.patches(pixels), vivit.positions(rows, columns))
        return Tokens(x, Grid(1, rows, columns), prefix=1, groups=1)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return cast(Sequence[nn.Module], _vivit(model).spatial_model.backbone.blocks)

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        x = tokens.x
        blk = cast(ViViTBlock, block)
        q, k, v = blk.heads(blk.input_layer_norm(x))
        scale = blk.head_dim**-0.5
        if tokens.policy is None:
            out, rows = attend(q, k, v, scale, log_size, wanted)
        else:
            out, rows = attend_masked(q, k, v, scale, tokens.policy, log_size), None
        return Attended(x + blk.projection(out.transpose(1, 2).flatten(2)), q, k, v, scale, rows=rows)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        blk = cast(ViViTBlock, block)
        branch = blk.mlp(blk.mlp_layer_norm(x))
        return Fed(x + branch, branch)

    def token_parts(self, block: nn.Module) -> BlockParts:
        blk = cast(ViViTBlock, block)
        return BlockParts(
            norm1=blk.input_layer_norm,
            qkv=blk.qkv,
            project=blk.projection,
            norm2=blk.mlp_layer_norm,
            feed=blk.mlp,
            heads=blk.num_heads,
            head_dim=blk.head_dim,
            scale=blk.head_dim**-0.5,
        )

    def steps(self, model: nn.Module, tokens: Tokens) -> list[Tokens]:
        by_step = tokens.x.unflatten(0, (-1, _vivit(model).grid.t))
        return [replace(tokens, x=x) for x in by_step.unbind(dim=1)]

    def joined(self, steps: list[Tokens]) -> Tokens:
        return replace(steps[0], x=torch.stack([step.x for step in steps], dim=1).flatten(0, 1))

    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        vivit = _vivit(model)
        return vivit.over_time(vivit.spatial_model.result(tokens.x))

    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        return _vivit(model).head(features)


def _encoder_macs(tokens: int, dim: int, hidden: int, depth: int) -> int:
    """Multiply-adds of a temporal model: its blocks, and the norm of its class token."""
    block = 4 * tokens * dim * dim + 2 * tokens * tokens * dim + 2 * tokens * dim * hidden + 10 * tokens * dim
    return depth * block + 5 * dim


def _vivit(model: nn.Module) -> ViViT:
    return cast(ViViT, model)
