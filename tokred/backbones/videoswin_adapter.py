"""The adapter for the project's own VideoSwin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from tokred.backbones.geometry import Geometry, Stage
from tokred.backbones.guards import refuse_hooks, refuse_overrides, require_type
from tokred.backbones.swin_layers import SwinBlock, WindowAttention
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.windowed_adapter import Parts, Unary, WindowedAdapter
from tokred.tokens import Grid, Tokens


class VideoSwinAdapter(WindowedAdapter):
    """Reads ``VideoSwin``. Video clips (B, 3, T, H, W)."""

    name = "tokred.VideoSwin"

    def accepts(self, model: nn.Module) -> bool:
        return isinstance(model, VideoSwin)

    def check(self, model: nn.Module) -> None:
        own = ("forward", "forward_features", "stages", "maps", "pool", "__call__")
        refuse_overrides(model, VideoSwin, own, type(model).__name__)
        for i, block in enumerate(self.blocks(model)):
            attn = cast(SwinBlock, block).attn
            parts: tuple[tuple[str, nn.Module, type[nn.Module]], ...] = (
                (f"block {i}", block, SwinBlock),
                (f"block {i}'s attn", attn, WindowAttention),
            )
            for where, module, kind in parts:
                require_type(module, (kind,), where)
                refuse_overrides(module, kind, ("forward", "__call__"), where)
                refuse_hooks(module, where)

    def geometry(self, model: nn.Module) -> Geometry:
        swin = _swin(model)
        kt, kh, kw = swin.patch_embed.proj.kernel_size
        stages = []
        by_stage = [cast(Sequence[SwinBlock], layer.blocks) for layer in swin.layers]
        first = by_stage[0][0]
        for blocks in by_stage:
            attn = blocks[0].attn
            stages.append(Stage(len(blocks), attn.num_heads * attn.head_dim, attn.num_heads, swin.window))
        return Geometry(
            depth=sum(stage.depth for stage in stages),
            dim=swin.dim,
            heads=first.attn.num_heads,
            head_dim=first.attn.head_dim,
            mlp_hidden=first.mlp.fc1.out_features,
            grid=swin.grid,
            prefix=0,
            classes=swin.num_classes,
            kernel=(kt, kh, kw),
            in_chans=swin.in_chans,
            final_norm_tokens=True,
            class_token=False,
            stages=tuple(stages),
            embed_norm=isinstance(swin.patch_embed.norm, nn.LayerNorm),
        )

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return [block for layer in _swin(model).layers for block in cast(Sequence[nn.Module], layer.blocks)]

    def own(self, block: nn.Module, tokens: Tokens) -> Tensor:
        return cast(Tensor, block(tokens.x, tokens.grid))

    def run(self, block: nn.Module, tokens: Tokens) -> Tensor:
        whole = tokens.cover is not None and tokens.cover.complete
        return self.own(block, tokens) if whole else super().run(block, tokens)

    def parts(self, block: nn.Module) -> Parts:
        own = cast(SwinBlock, block)
        attn = own.attn
        return Parts(own.norm1, attn, attn.scale, own.norm2, own.mlp, own.drop_path, attn.window_size, own.shifted)

    def patches(self, model: nn.Module, pixels: Tensor) -> tuple[Tensor, Grid]:
        return _swin(model).embed(pixels)

    def merge(self, model: nn.Module, stage: int, x: Tensor, grid: Grid) -> Tensor:
        merging = cast(nn.Module, _swin(model).layers[stage].downsample)
        return cast(Tensor, merging(x, grid)[0])

    def final_norm(self, model: nn.Module) -> Unary:
        return _swin(model).norm

    def head(self, model: nn.Module) -> Unary:
        return _swin(model).head


def _swin(model: nn.Module) -> VideoSwin:
    return cast(VideoSwin, model)
