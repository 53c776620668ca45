"""The adapter for torchvision's SwinTransformer3d (swin3d_t, swin3d_s, swin3d_b and other sizes)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from tokred.backbones.adapter import Unsupported
from tokred.backbones.geometry import Geometry, Stage
from tokred.backbones.guards import refuse_hooks, refuse_overrides, require_type
from tokred.backbones.windowed_adapter import Parts, Unary, WindowedAdapter
from tokred.tokens import Grid, Tokens

MODULE = "torchvision.models.video.swin_transformer"
FLAT = "torchvision.models.swin_transformer"
NATIVE = (32, 224, 224)
"""Frames, height and width for which counts are given: torchvision's model does not carry its own."""


class TorchvisionSwinAdapter(WindowedAdapter):
    """Reads torchvision's ``SwinTransformer3d``. Clips (B, 3, T, H, W). Blocks run tokred's fused window attention."""

    name = "torchvision SwinTransformer3d"

    def accepts(self, model: nn.Module) -> bool:
        library = sys.modules.get(MODULE)
        return library is not None and isinstance(model, library.SwinTransformer3d)

    def check(self, model: nn.Module) -> None:
        video, flat = sys.modules[MODULE], sys.modules[FLAT]
        swin = _any(model)
        refuse_overrides(model, video.SwinTransformer3d, ("forward", "__call__"), type(model).__name__)
        require_type(swin.patch_embed, (video.PatchEmbed3d,), "patch_embed")
        refuse_hooks(swin.features, "features")
        refuse_hooks(swin.avgpool, "avgpool")
        for i, stage in enumerate(swin.features):
            if i % 2:
                require_type(stage, (flat.PatchMerging,), f"features.{i}")
            else:
                refuse_hooks(stage, f"features.{i}")
        for i, block in enumerate(self.blocks(model)):
            attn = _any(block).attn
            kinds: tuple[tuple[str, nn.Module, type[nn.Module]], ...] = (
                (f"block {i}", block, flat.SwinTransformerBlock),
                (f"block {i}'s attn", attn, video.ShiftedWindowAttention3d),
            )
            for where, module, kind in kinds:
                require_type(module, (kind,), where)
                refuse_overrides(module, kind, ("forward", "__call__"), where)
                refuse_hooks(module, where)
            if attn.attention_dropout or attn.dropout:
                raise Unsupported(
                    f"block {i}: attention_dropout = {attn.attention_dropout}, dropout = {attn.dropout} around window "
                    "attention is not possible with a reducer: allowed is 0"
                )
            half = [length // 2 for length in attn.window_size]
            if list(attn.shift_size) not in ([0, 0, 0], half):
                raise Unsupported(f"block {i}: shift_size = {list(attn.shift_size)}; allowed are [0, 0, 0] and {half}")

    def geometry(self, model: nn.Module) -> Geometry:
        swin = _any(model)
        kernel = tuple(swin.patch_embed.tuple_patch_size)
        stages = []
        for stage in swin.features[::2]:
            attn = stage[0].attn
            stages.append(Stage(len(stage), attn.qkv.in_features, attn.num_heads, tuple(attn.window_size)))
        first = stages[0]
        return Geometry(
            depth=sum(stage.depth for stage in stages),
            dim=first.dim,
            heads=first.heads,
            head_dim=first.dim // first.heads,
            mlp_hidden=swin.features[0][0].mlp[0].out_features,
            grid=Grid(*(-(-length // step) for length, step in zip(NATIVE, kernel, strict=True))),
            prefix=0,
            classes=swin.head.out_features,
            kernel=cast("tuple[int, int, int]", kernel),
            in_chans=swin.patch_embed.proj.in_channels,
            final_norm_tokens=True,
            class_token=False,
            stages=tuple(stages),
            embed_norm=isinstance(swin.patch_embed.norm, nn.LayerNorm),
        )

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return [block for stage in _any(model).features[::2] for block in stage]

    def own(self, block: nn.Module, tokens: Tokens) -> Tensor:
        b, _, c = tokens.x.shape
        return cast(Tensor, block(tokens.x.view(b, *tokens.grid, c))).view(b, -1, c)

    def parts(self, block: nn.Module) -> Parts:
        blk = _any(block)
        attn = blk.attn
        scale = (attn.qkv.in_features // attn.num_heads) ** -0.5
        window, shifted = tuple(attn.window_size), any(attn.shift_size)
        return Parts(blk.norm1, attn, scale, blk.norm2, blk.mlp, blk.stochastic_depth, window, shifted)

    def patches(self, model: nn.Module, pixels: Tensor) -> tuple[Tensor, Grid]:
        swin = _any(model)
        x = swin.pos_drop(swin.patch_embed(pixels))  # (B, T, H, W, C)
        return x.flatten(1, 3), Grid(*x.shape[1:4])

    def merge(self, model: nn.Module, stage: int, x: Tensor, grid: Grid) -> Tensor:
        merging = _any(model).features[2 * stage + 1]
        return cast(Tensor, merging(x.view(x.shape[0], *grid, -1))).flatten(1, 3)

    def final_norm(self, model: nn.Module) -> Unary:
        return cast(Unary, _any(model).norm)

    def head(self, model: nn.Module) -> Unary:
        return cast(Unary, _any(model).head)


def _any(module: nn.Module) -> Any:
    return module
