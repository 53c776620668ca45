"""The video ViT in VideoMAE's layout, with the official names in its state dict.

Differs from the official code (MCG-NJU/VideoMAE, modeling_finetune.py) in running fused attention, in refusing a
frame count that the tubelet does not divide (the official convolution drops the rest in silence), and in writing
the tubelet embedding as reshape + linear with the convolution's weights (same result, also on the meta device).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from tokred.backbones.positions import resample, sincos_flat, sincos_grid
from tokred.backbones.sizes import patch_grid
from tokred.tokens import Grid

NORM_EPS = 1e-6


class TubeletEmbed(nn.Module):
    """Clips (B, 3, T, H, W) to patch tokens (B, P, C), t-major."""

    def __init__(self, patch_size: int, tubelet_size: int, in_chans: int, dim: int) -> None:
        super().__init__()
        kernel = (tubelet_size, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, dim, kernel_size=kernel, stride=kernel)

    def grid_of(self, clips: Tensor) -> Grid:
        """The patch grid of clips (B, 3, T, H, W)."""
        kernel = self.proj.kernel_size
        if clips.ndim != 5 or clips.shape[1] != self.proj.in_channels:
            raise ValueError(f"clips must be (B, {self.proj.in_channels}, T, H, W), got {tuple(clips.shape)}")
        for name, length, step in zip(("frames", "height", "width"), clips.shape[2:], kernel, strict=True):
            if length % step or length == 0:
                raise ValueError(f"{name} = {length} is not a positive multiple of the tubelet's {step}")
        return Grid(*(length // step for length, step in zip(clips.shape[2:], kernel, strict=True)))

    def forward(self, clips: Tensor) -> Tensor:
        t, h, w = self.grid_of(clips)
        b, c = clips.shape[:2]
        kt, kh, kw = self.proj.kernel_size
        x = clips.reshape(b, c, t, kt, h, kh, w, kw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return F.linear(x.reshape(b, t * h * w, c * kt * kh * kw), self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head attention with query and value biases; the key bias is zero."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = nn.Linear(dim, dim)

    def joint(self, x: Tensor) -> Tensor:
        """Queries, keys and values of tokens (B, N, C) side by side, (B, N, 3 * heads * d)."""
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        return F.linear(x, self.qkv.weight, bias)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens (B, N, C), each (B, heads, N, d)."""
        b, n, _ = x.shape
        qkv = self.joint(x).reshape(b, n, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth per sample; the identity in eval mode."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask / keep


class Block(nn.Module):
    """Pre-norm transformer block, with layer scale when ``init_values`` > 0."""

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, init_values: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        scaled = init_values > 0
        self.gamma_1 = nn.Parameter(torch.full((dim,), init_values)) if scaled else None
        self.gamma_2 = nn.Parameter(torch.full((dim,), init_values)) if scaled else None

    def attention_branch(self, y: Tensor) -> Tensor:
        """Layer scale and drop path of the attention branch's output (B, N, C)."""
        return self.drop_path(y if self.gamma_1 is None else self.gamma_1 * y)

    def mlp_branch(self, y: Tensor) -> Tensor:
        """Layer scale and drop path of the MLP branch's output (B, N, C)."""
        return self.drop_path(y if self.gamma_2 is None else self.gamma_2 * y)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention_branch(self.attn(self.norm1(x)))
        return x + self.mlp_branch(self.mlp(self.norm2(x)))


class VideoViT(nn.Module):
    """Video vision transformer, VideoMAE layout: clips (B, 3, T, H, W) to logits (B, classes).

    Args:
        img_size: height and width in pixels (one number for a square).
        patch_size: patch side in pixels.
        tubelet_size: frames per tubelet.
        frames: frames per clip.
        dim: width C.
        depth: number of blocks.
        num_heads: attention heads.
        mlp_ratio: hidden width of the MLP over C.
        num_classes: length of the logits; 0 leaves the pooled features.
        qkv_bias: whether queries and values carry a bias.
        init_values: initial layer scale; 0 = off.
        positions: "flat" (VideoMAE's fixed table over the flattened index), "grid" (separable table, base 50) or
            "learned" (a parameter ``pos_embed``). The fixed tables are no part of the state dict.
        mean_pooling: mean over tokens + ``fc_norm``; False: ``norm`` + first token.
        drop_path: stochastic depth at the last block, rising linearly from 0.
    Raises:
        ValueError: sizes that do not divide.
    """

    pos_embed: Tensor

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        tubelet_size: int = 2,
        frames: int = 16,
        in_chans: int = 3,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_classes: int = 400,
        qkv_bias: bool = True,
        init_values: float = 0.0,
        positions: str = "flat",
        mean_pooling: bool = True,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.img_size, self.grid = patch_grid(img_size, frames, patch_size, tubelet_size)
        if dim % num_heads:
            raise ValueError(f"num_heads = {num_heads} does not divide dim = {dim}")
        self.frames = frames
        self.in_chans = in_chans
        self.dim = dim
        self.num_classes = num_classes
        self.grad_checkpointing = False
        self.patch_embed = TubeletEmbed(patch_size, tubelet_size, in_chans, dim)
        if positions == "learned":
            self.pos_embed = nn.Parameter(torch.zeros(1, self.grid.patches, dim))
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        elif positions in ("flat", "grid"):
            table = sincos_flat(self.grid.patches, dim) if positions == "flat" else sincos_grid(self.grid, dim)
            self.register_buffer("pos_embed", table.to(self.patch_embed.proj.weight.device), persistent=False)
        else:
            raise ValueError(f"positions = {positions!r} is not one of flat, grid, learned")
        rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio, qkv_bias, init_values, rate) for rate in rates)
        self.norm = nn.Identity() if mean_pooling else nn.LayerNorm(dim, eps=NORM_EPS)
        self.fc_norm = nn.LayerNorm(dim, eps=NORM_EPS) if mean_pooling else None
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        self.apply(_init_weights)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks' activations in the backward pass instead of keeping them."""
        self.grad_checkpointing = enable

    def embed(self, clips: Tensor, positions: Tensor | None = None) -> Tensor:
        """Patch tokens with positions, (B, P, C).

        Args:
            clips: (B, 3, T, H, W); a grid other than the model's gets resampled positions.
            positions: (1, P, C) table to add instead.
        """
        table = resample(self.pos_embed, self.grid, self.patch_embed.grid_of(clips)) if positions is None else positions
        x = self.patch_embed(clips)
        return x + table.to(x.dtype)

    def pool(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to features (B, C): plain mean and ``fc_norm``, or ``norm`` and the first token."""
        x = self.norm(x)
        return x[:, 0] if self.fc_norm is None else self.fc_norm(x.mean(dim=1))

    def forward_features(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) to features before the head, (B, C)."""
        x = self.embed(clips)
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.pool(x)

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.forward_features(clips))


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
