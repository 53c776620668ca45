"""What training computes with: a copy of the weights in the training precision, and attention written out."""

from __future__ import annotations

import types
from copy import deepcopy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from tokred.backbones.swin_layers import WindowAttention
from tokred.backbones.videomae import Attention
from tokred.backbones.vivit import ViViTBlock
from tokred.backbones.windows import window_bias, window_layout
from tokred.tokens import Grid

Trained = TypeVar("Trained", bound=nn.Module)


def explicit_attention(self: Attention, x: Tensor) -> Tensor:
    """Attention as two products and a softmax: its backward is faster than the fused one on CPU."""
    q, k, v = self.heads(x)
    weights = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
    return cast(Tensor, self.proj((weights @ v).transpose(1, 2).flatten(2)))


def explicit_window_attention(self: WindowAttention, x: Tensor, grid: Grid, shifted: bool) -> Tensor:
    """The same inside windows: a bias whose gradient is wanted keeps fused attention from its fast kernels anyway."""
    layout = window_layout(grid, self.window_size, shifted, x.device)
    q, k, v = self.heads(layout.split(self.qkv(x), self.qkv.bias))  # (count, B, heads, V, d)
    bias = window_bias(self, layout)
    if len(layout.ranges) > 1:
        sizes = torch.tensor([end - first for first, end in layout.ranges], device=x.device)
        bias = bias.repeat_interleave(sizes, dim=0, output_size=layout.count)
    weights = ((q * self.scale) @ k.transpose(-2, -1) + bias[:, None]).softmax(dim=-1)
    return cast(Tensor, self.proj(layout.join((weights @ v).transpose(2, 3).flatten(3))))


def explicit_vivit_block(self: ViViTBlock, x: Tensor) -> Tensor:
    """The same in a block of ViViT, which has no module for attention alone."""
    q, k, v = self.heads(self.input_layer_norm(x))
    weights = ((q * self.head_dim**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
    x = x + self.projection((weights @ v).transpose(1, 2).flatten(2))
    return x + self.mlp(self.mlp_layer_norm(x))


def working_copy(trainee: Trained, precision: str, attention: str) -> Trained:
    """A copy in the training precision and with the training kernel; the master weights stay float32.

    Args:
        trainee: the master weights.
        precision: "bf16" or "fp32"; attention: "explicit" or "fused".
    """
    copy = deepcopy(trainee)
    if precision == "bf16":
        copy = copy.bfloat16()
    if attention == "explicit":
        for module in copy.modules():
            if isinstance(module, Attention):
                module.forward = types.MethodType(explicit_attention, module)  # type: ignore[method-assign]
            elif isinstance(module, WindowAttention):
                module.forward = types.MethodType(explicit_window_attention, module)  # type: ignore[method-assign]
            elif isinstance(module, ViViTBlock):
                module.forward = types.MethodType(explicit_vivit_block, module)  # type: ignore[method-assign]
            elif hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", False)  # noqa: B010 (timm has both kernels; no annotation says so)
    return copy
