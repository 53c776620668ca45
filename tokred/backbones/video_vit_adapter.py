"""The adapter for the project's own VideoViT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from tokred.backbones.adapter import Adapter, Attended, Fed, mean_tokens, token_weights
from tokred.backbones.attention import attend, shrink_pixels
from tokred.backbones.geometry import Geometry
from tokred.backbones.guards import refuse_hooks, refuse_overrides, require_type
from tokred.backbones.masked import attend_masked
from tokred.backbones.parts import BlockParts
from tokred.backbones.positions import resample
from tokred.backbones.videomae import Attention, Block, VideoViT
from tokred.reducer import SmallerInput
from tokred.saliency import RowsWanted
from tokred.tokens import Grid, Tokens


class VideoViTAdapter(Adapter):
    """Reads ``VideoViT``. Video clips (B, 3, T, H, W)."""

    name = "tokred.VideoViT"

    def accepts(self, model: nn.Module) -> bool:
        return isinstance(model, VideoViT)

    def check(self, model: nn.Module) -> None:
        refuse_overrides(model, VideoViT, ("forward", "forward_features", "__call__"), type(model).__name__)
        for i, block in enumerate(cast(Sequence[Block], _vit(model).blocks)):
            # A block that is taken apart does not run its own forward, nor its attention's.
            for where, module, kind in ((f"block {i}", block, Block), (f"block {i}'s attn", block.attn, Attention)):
                require_type(module, (kind,), where)
                refuse_overrides(module, kind, ("forward", "__call__"), where)
                refuse_hooks(module, where)

    def geometry(self, model: nn.Module) -> Geometry:
        vit = _vit(model)
        block = cast(Block, vit.blocks[0])
        kt, kh, kw = vit.patch_embed.proj.kernel_size
        return Geometry(
            depth=len(vit.blocks),
            dim=vit.dim,
            heads=block.attn.num_heads,
            head_dim=block.attn.head_dim,
            mlp_hidden=block.mlp.fc1.out_features,
            grid=vit.grid,
            prefix=0,
            classes=vit.num_classes,
            kernel=(kt, kh, kw),
            in_chans=vit.in_chans,
            final_norm_tokens=vit.fc_norm is None,
        )

    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        def forward(clips: Tensor) -> Tensor:
            return clips

        return forward(*args, **kwargs)

    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        vit = _vit(model)
        if smaller is None:
            x = vit.embed(pixels)
            grid = vit.patch_embed.grid_of(pixels)
        else:
            grid = smaller.grid
            x = vit.embed(*shrink_clips(vit, pixels, smaller))
        return Tokens(x, grid, prefix=0, groups=grid.t)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return cast(Sequence[nn.Module], _vit(model).blocks)

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        x = tokens.x
        blk = cast(Block, block)
        attn = blk.attn
        q, k, v = attn.heads(blk.norm1(x))
        if tokens.policy is None:
            out, rows = attend(q, k, v, attn.scale, log_size, wanted)
        else:
            out, rows = attend_masked(q, k, v, attn.scale, tokens.policy, log_size), None
        out = attn.proj(out.transpose(1, 2).flatten(2))
        return Attended(x + blk.attention_branch(out), q, k, v, attn.scale, rows=rows)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        blk = cast(Block, block)
        branch = blk.mlp(blk.norm2(x))
        return Fed(x + blk.mlp_branch(branch), branch)

    def token_parts(self, block: nn.Module) -> BlockParts:
        blk = cast(Block, block)
        attn = blk.attn
        return BlockParts(
            norm1=blk.norm1,
            qkv=attn.joint,
            project=lambda y: blk.attention_branch(attn.proj(y)),
            norm2=blk.norm2,
            feed=lambda y: blk.mlp_branch(blk.mlp(y)),
            heads=attn.num_heads,
            head_dim=attn.head_dim,
            scale=attn.scale,
        )

    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        vit = _vit(model)
        if vit.fc_norm is None or token_weights(tokens, pool) is None:
            return vit.pool(tokens.x)
        return vit.fc_norm(mean_tokens(vit.norm(tokens.x), tokens, pool))

    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        return _vit(model).head(features)


def shrink_clips(vit: VideoViT, clips: Tensor, smaller: SmallerInput) -> tuple[Tensor, Tensor]:
    """Smaller clips and the positions that go with them.

    Returns:
        clips (B, 3, T', H', W') and positions (1, P', C): those of the tubelets that stay, resampled over space.
    """
    kt, kh, kw = vit.patch_embed.proj.kernel_size
    full = vit.patch_embed.grid_of(clips)
    if full.t != vit.grid.t:
        raise ValueError(
            f"a smaller input was planned for the model's {vit.grid.t} tubelets of time, the clips have {full.t}"
        )
    table = resample(vit.pos_embed, vit.grid, Grid(full.t, smaller.grid.h, smaller.grid.w))
    if smaller.frames is not None:
        frames = [kt * t + i for t in smaller.frames for i in range(kt)]
        clips = clips[:, :, frames]
        table = table.reshape(1, full.t, -1, table.shape[-1])[:, list(smaller.frames)].flatten(1, 2)
    return shrink_pixels(clips, smaller.grid.h * kh, smaller.grid.w * kw), table


def _vit(model: nn.Module) -> VideoViT:
    return cast(VideoViT, model)
