"""The factorised ViViT (Arnab et al., ICCV 2021, model 2): a spatial ViT per tubelet, a temporal ViT on top.

Names and arithmetic are those of the Eventful Transformers code (WISION-Lab/eventful-transformer, ``models/vivit.py``),
whose classifier is called ``head`` here. It differs in running fused attention, in norming only the class token that is
read, and in refusing clips of another length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.positions import resample
from tokred.backbones.sizes import patch_grid
from tokred.tokens import Grid

NORM_EPS = 1e-6


class TubeletEmbedding(nn.Module):
    """Clips (B, 3, T, H, W) to patch tokens of each step, (B, T', S, C)."""

    def __init__(self, in_chans: int, dim: int, tubelet: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_chans, dim, kernel_size=tubelet, stride=tubelet)

    def forward(self, clips: Tensor) -> Tensor:
        b, c, t, h, w = clips.shape
        kt, kh, kw = self.conv.kernel_size
        x = clips.reshape(b, c, t // kt, kt, h // kh, kh, w // kw, kw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        x = x.reshape(b, t // kt, (h // kh) * (w // kw), c * kt * kh * kw)
        return F.linear(x, self.conv.weight.flatten(1), self.conv.bias)


class ViViTBlock(nn.Module):
    """Pre-norm transformer block on (B, N, C)."""

    def __init__(self, dim: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.input_layer_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.projection = nn.Linear(dim, dim)
        self.mlp_layer_norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp_1 = nn.Linear(dim, hidden)
        self.mlp_2 = nn.Linear(hidden, dim)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of normalised tokens (B, N, C), each (B, H, N, d)."""
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def mlp(self, x: Tensor) -> Tensor:
        """Two linear layers with an exact GELU between."""
        return self.mlp_2(F.gelu(self.mlp_1(x)))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.input_layer_norm(x))
        x = x + self.projection(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.mlp_layer_norm(x))


class PositionEncoding(nn.Module):
    """A learned table, class token first, (1, 1 + P, C)."""

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.encoding = nn.Parameter(torch.zeros(1, tokens, dim))
        nn.init.trunc_normal_(self.encoding, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.encoding


class Encoder(nn.Module):
    """Positions and blocks."""

    def __init__(self, tokens: int, dim: int, depth: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.position_encoding = PositionEncoding(tokens, dim)
        self.blocks = nn.ModuleList(ViViTBlock(dim, num_heads, hidden) for _ in range(depth))


class SubModel(nn.Module):
    """A ViT whose class token is its result."""

    def __init__(self, patches: int, dim: int, depth: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.backbone = Encoder(patches + 1, dim, depth, num_heads, hidden)
        self.layer_norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def embed(self, patches: Tensor, positions: Tensor | None = None) -> Tensor:
        """Patch tokens (B, P, C) with the class token in front and positions, (B, 1 + P, C).

        Args:
            positions: (1, 1 + P, C) instead of the model's own.
        """
        x = torch.cat([self.class_token.expand(len(patches), -1, -1).to(patches.dtype), patches], dim=1)
        return self.backbone.position_encoding(x) if positions is None else x + positions.to(x.dtype)

    def result(self, x: Tensor) -> Tensor:
        """Tokens after the blocks (B, N, C) to the class feature (B, C)."""
        return self.layer_norm(x[:, 0])

    def forward(self, patches: Tensor) -> Tensor:
        x = self.embed(patches)
        for block in self.backbone.blocks:
            x = block(x)
        return self.result(x)


class ViViT(nn.Module):
    """Factorised ViViT: clips (B, 3, T, H, W) to logits (B, classes).

    Args:
        img_size: height and width in pixels (one number for a square).
        patch_size: patch side in pixels; tubelet_size: frames per tubelet; frames: frames per clip.
        dim: width C; depth, temporal_depth: blocks of the spatial and of the temporal model.
        num_heads: attention heads; mlp_ratio: hidden width of the MLP over C.
        num_classes: length of the logits; 0 leaves the features.
    Raises:
        ValueError: sizes that do not divide.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        tubelet_size: int = 2,
        frames: int = 32,
        in_chans: int = 3,
        dim: int = 768,
        depth: int = 12,
        temporal_depth: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        num_classes: int = 400,
    ) -> None:
        super().__init__()
        self.img_size, self.grid = patch_grid(img_size, frames, patch_size, tubelet_size)
        if dim % num_heads:
            raise ValueError(f"num_heads = {num_heads} does not divide dim = {dim}")
        self.frames = frames
        self.in_chans = in_chans
        self.dim = dim
        self.num_classes = num_classes
        hidden = int(dim * mlp_ratio)
        self.embedding = TubeletEmbedding(in_chans, dim, (tubelet_size, patch_size, patch_size))
        self.spatial_model = SubModel(self.grid.per_frame, dim, depth, num_heads, hidden)
        self.temporal_model = SubModel(self.grid.t, dim, temporal_depth, num_heads, hidden)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def patches(self, clips: Tensor) -> Tensor:
        """Patch tokens of every step, (B * T', S, C), the steps of a clip after one another.

        Raises:
            ValueError: clips of another length, or pixels that patches do not divide.
        """
        _, kh, kw = self.embedding.conv.kernel_size
        if clips.ndim != 5 or clips.shape[1] != self.in_chans or clips.shape[2] != self.frames:
            raise ValueError(f"clips must be (B, {self.in_chans}, {self.frames}, H, W), got {tuple(clips.shape)}")
        if clips.shape[3] % kh or clips.shape[4] % kw:
            raise ValueError(f"{clips.shape[3]}x{clips.shape[4]} pixels are no multiple of patches of {kh}x{kw}")
        return self.embedding(clips).flatten(0, 1)

    def positions(self, rows: int, columns: int) -> Tensor:
        """The spatial table for another grid, (1, 1 + rows * columns, C): patches bicubic, the class token as it is."""
        table = self.spatial_model.backbone.position_encoding.encoding
        old, new = Grid(1, self.grid.h, self.grid.w), Grid(1, rows, columns)
        return table if old == new else torch.cat([table[:, :1], resample(table[:, 1:], old, new)], dim=1)

    def over_time(self, features: Tensor) -> Tensor:
        """Class features of all steps (B * T', C) to the clip's feature (B, C)."""
        return self.temporal_model(features.reshape(-1, self.grid.t, self.dim))

    def forward_features(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) to features before the head, (B, C)."""
        kernel = self.embedding.conv.kernel_size
        spatial = self.spatial_model
        x = spatial.embed(self.patches(clips), self.positions(clips.shape[3] // kernel[1], clips.shape[4] // kernel[2]))
        for block in spatial.backbone.blocks:
            x = block(x)
        return self.over_time(spatial.result(x))

    def forward(self, clips: Tensor) -> Tensor:
        return self.head(self.forward_features(clips))
