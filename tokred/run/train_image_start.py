"""Where the training of a small image ViT starts: attention and positions as trained ones look, whitened patches."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

# Strengths of the noise and of the identity in the two products of attention, from "Mimetic Initialization of
# Self-Attention Layers" (Trockman and Kolter, ICML 2023).
QUERY_KEY, VALUE_OUT = (0.7, 0.7), (0.4, 0.4)
PATCHES = 20_000
FLOOR = 1e-3  # share of the mean variance below which a direction is noise and is not blown up


def mimetic(model: nn.Module) -> None:
    """Sets attention so that tokens first attend to their like, and positions to sines; uses the global random state.

    Per head, queries and keys have a product near 0.7 Z + 0.7 I, values and output one near 0.4 Z - 0.4 I, with Z
    random of variance 1 / C: the products that trained ViTs tend to have.

    Args:
        model: timm's ``VisionTransformer`` with a square grid and a class token.
    """
    vit: Any = model
    with torch.no_grad():
        for block in vit.blocks:
            _attention(block.attn)
        rows, columns = vit.patch_embed.grid_size
        vit.pos_embed[:, vit.num_prefix_tokens :].copy_(_sines(rows, columns, vit.embed_dim))


def whiten(model: nn.Module, pictures: Tensor) -> None:
    """Sets the patch embedding so that its outputs on these pictures are uncorrelated and of equal variance.

    Args:
        model: timm's ``VisionTransformer``; pictures: (B, 3, H, W) normalised.
    """
    vit: Any = model
    kernel = vit.patch_embed.proj.kernel_size
    patches = nn.functional.unfold(pictures, kernel, stride=kernel)  # (B, 3 * h * w, P)
    flat = patches.transpose(1, 2).flatten(0, 1)[:PATCHES].double()
    mean = flat.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(flat.T))
    whitening = vectors * values.clamp_min(FLOOR * values.mean()).rsqrt()  # columns
    width = vit.embed_dim
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(max(width, len(values)), len(values), generator=generator).double()).Q[:width]
    with torch.no_grad():
        weight = turn @ whitening.T * math.sqrt(width / len(values))
        vit.patch_embed.proj.weight.copy_(weight.view_as(vit.patch_embed.proj.weight))
        vit.patch_embed.proj.bias.copy_(-weight @ mean)


def _attention(attn: Any) -> None:
    heads, head_dim = attn.num_heads, attn.head_dim
    width = heads * head_dim
    identity = torch.eye(width)
    for head in range(heads):
        product = QUERY_KEY[0] * torch.randn(width, width) / math.sqrt(width) + QUERY_KEY[1] * identity
        u, s, v = torch.linalg.svd(product)
        root = s[:head_dim].sqrt()
        rows = slice(head * head_dim, (head + 1) * head_dim)
        attn.qkv.weight[:width][rows] = (u[:, :head_dim] * root).T
        attn.qkv.weight[width : 2 * width][rows] = v[:head_dim] * root[:, None]
    product = VALUE_OUT[0] * torch.randn(width, width) / math.sqrt(width) - VALUE_OUT[1] * identity
    u, s, v = torch.linalg.svd(product)
    # Tokens are rows: they meet values^T and then output^T, whose product is u s v.
    attn.qkv.weight[2 * width :] = (u * s.sqrt()).T
    attn.proj.weight.copy_((v * s.sqrt()[:, None]).T)


def _sines(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the row, then of the column, (rows * columns, width)."""
    quarter = width // 4
    frequency = 1 / 10_000 ** (torch.arange(quarter) / quarter)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * frequency for place in (y, x)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
