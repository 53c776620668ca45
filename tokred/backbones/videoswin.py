"""The Video Swin Transformer, with the official names in its state dict (without the prefix ``backbone.``).

Reference: Liu et al., CVPR 2022, official mmaction/models/backbones/swin_transformer.py. Differs from it as its parts
in ``swin_layers`` do, in holding the head, and in keeping tokens as (B, P, C) in raster order beside their grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import cast

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from tokred.backbones.swin_layers import NORM_EPS, PatchEmbed, PatchMerging, Stage, SwinBlock
from tokred.backbones.window_layout import Window
from tokred.tokens import Grid


class VideoSwin(nn.Module):
    """Video Swin Transformer: clips (B, 3, T, H, W) to logits (B, classes).

    Args:
        img_size: height and width in pixels (one number for a square); other sizes run too.
        patch_size: frames, rows and columns of a patch.
        frames: frames per clip; other lengths run too.
        dim: width C of the first stage; it doubles from stage to stage.
        depths: blocks per stage.
        num_heads: attention heads per stage.
        window: window lengths (t, h, w) in patches; clipped where a map is not longer.
        mlp_ratio: hidden width of the MLP over the stage's width.
        num_classes: length of the logits; 0 leaves the pooled features.
        qkv_bias: whether queries, keys and values carry a bias.
        patch_norm: LayerNorm after the patch embedding.
        drop_path: stochastic depth at the last block, rising linearly from 0.
    Raises:
        ValueError: stages without blocks or heads, and widths that the heads do not divide.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: Sequence[int] = (2, 4, 4),
        frames: int = 32,
        in_chans: int = 3,
        dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window: Sequence[int] = (8, 7, 7),
        mlp_ratio: float = 4.0,
        num_classes: int = 400,
        qkv_bias: bool = True,
        patch_norm: bool = True,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        patch, window = _lengths("patch_size", patch_size), _lengths("window", window)
        if not depths or len(depths) != len(num_heads) or min(depths) < 1:
            raise ValueError(f"depths {tuple(depths)} and num_heads {tuple(num_heads)}: one positive number per stage")
        for i, heads in enumerate(num_heads):
            if heads < 1 or (dim * 2**i) % heads:
                raise ValueError(f"num_heads = {heads} does not divide the width {dim * 2**i} of stage {i}")
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else (img_size[0], img_size[1])
        self.frames = frames
        self.in_chans = in_chans
        self.dim = dim
        self.window = window
        self.num_classes = num_classes
        self.grid = Grid(*(math.ceil(length / step) for length, step in zip((frames, *self.img_size), patch)))
        self.grad_checkpointing = False
        self.patch_embed = PatchEmbed(patch, in_chans, dim, patch_norm)
        rates = iter(_linear(drop_path, sum(depths)))
        stages = []
        for i, (depth, heads) in enumerate(zip(depths, num_heads, strict=True)):
            width = dim * 2**i
            blocks = [
                SwinBlock(width, heads, window, j % 2 == 1, mlp_ratio, qkv_bias, next(rates)) for j in range(depth)
            ]
            stages.append(Stage(blocks, PatchMerging(width) if i + 1 < len(depths) else None))
        self.layers = nn.ModuleList(stages)
        self.num_features = dim * 2 ** (len(depths) - 1)
        self.norm = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.apply(_init_weights)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def embed(self, clips: Tensor) -> tuple[Tensor, Grid]:
        """Patch tokens (B, P, C) and their grid."""
        return self.patch_embed(clips), self.patch_embed.grid_of(clips)

    def stages(self, clips: Tensor) -> Iterator[tuple[Tensor, Grid]]:
        """Tokens (B, P, C) and grid after the blocks of each stage, before its merging."""
        x, grid = self.embed(clips)
        for stage in cast(Sequence[Stage], self.layers):
            for block in stage.blocks:
                if self.grad_checkpointing and torch.is_grad_enabled():
                    x = torch.utils.checkpoint.checkpoint(block, x, grid, use_reentrant=False)
                else:
                    x = block(x, grid)
            yield x, grid
            if stage.downsample is not None:
                x, grid = stage.downsample(x, grid)

    def maps(self, clips: Tensor) -> tuple[Tensor, Grid]:
        """Tokens after the last block (B, P, C), before the final norm, and their grid."""
        for found in self.stages(clips):
            last = found
        return last

    def pool(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to features (B, C): ``norm`` and the plain mean."""
        return cast(Tensor, self.norm(x)).mean(dim=1)

    def forward_features(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) to features before the head, (B, C)."""
        return self.pool(self.maps(clips)[0])

    def forward(self, clips: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.forward_features(clips)))


def _lengths(name: str, given: Sequence[int]) -> Window:
    lengths = tuple(int(length) for length in given)
    if len(lengths) != 3 or min(lengths) < 1:
        raise ValueError(f"{name} = {tuple(given)} must be three lengths (t, h, w) of at least 1")
    return lengths


def _linear(last: float, count: int) -> list[float]:
    return [last * i / max(count - 1, 1) for i in range(count)]


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
