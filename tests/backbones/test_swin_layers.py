"""The parts of the video Swin: padding, merging order, and where windows meet padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tokred.backbones.swin_layers import PatchEmbed, PatchMerging, SwinBlock, WindowAttention
from tokred.tokens import Grid


def test_embedding_is_the_convolution_of_the_padded_clip() -> None:
    embed = PatchEmbed((2, 4, 3), 3, 6, norm=True)
    clips = torch.randn(2, 3, 5, 9, 10)
    wanted = embed.norm(embed.proj(F.pad(clips, (0, 2, 0, 3, 0, 1))).flatten(2).transpose(1, 2))
    assert embed.grid_of(clips) == Grid(3, 3, 4)
    torch.testing.assert_close(embed(clips), wanted)
    whole = torch.randn(1, 3, 4, 8, 9)
    torch.testing.assert_close(embed(whole), embed.norm(embed.proj(whole).flatten(2).transpose(1, 2)))


def test_merging_takes_even_even_odd_even_even_odd_odd_odd() -> None:
    merging = PatchMerging(2)
    merging.norm = torch.nn.Identity()  # type: ignore[assignment]
    merging.reduction = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.arange(12.0)[None, :, None].expand(1, 12, 2)
    merged, grid = merging(x, Grid(1, 3, 4))
    assert grid == Grid(1, 2, 2)
    assert merged[0, :, ::2].tolist() == [[0, 4, 1, 5], [2, 6, 3, 7], [8, 0, 9, 0], [10, 0, 11, 0]]


def test_padding_is_attended_to_and_holds_the_bias() -> None:
    attn = WindowAttention(4, 1, (1, 2, 2), True).requires_grad_(False)
    attn.relative_position_bias_table.normal_()
    attn.qkv.bias.normal_()
    row = torch.randn(1, 3, 4)  # a row of three, windows of two: the second window has one place and one of padding
    out = attn(row, Grid(1, 1, 3), False)
    q, k, v = attn.qkv(torch.cat([row[0, 2:], torch.zeros(1, 4)])).chunk(3, dim=-1)
    bias = attn.relative_position_bias_table[attn.relative_position_index[:2, :2], 0]
    wanted = attn.proj(((q * attn.scale) @ k.t() + bias).softmax(-1) @ v)
    torch.testing.assert_close(out[0, 2], wanted[0])


def test_heads_are_views_of_the_projection() -> None:
    attn = WindowAttention(8, 2, (2, 2, 2), True)
    qkv = torch.randn(2, 5, 24)
    q, k, v = attn.heads(qkv)
    assert q.shape == k.shape == v.shape == (2, 2, 5, 4)
    assert torch.equal(torch.stack([q, k, v], dim=1).permute(0, 3, 1, 2, 4).flatten(2), qkv)
    assert q.data_ptr() == qkv.data_ptr()


def test_a_block_is_two_residual_branches() -> None:
    block = SwinBlock(8, 2, (2, 2, 2), True, 2.0, True, 0.0).eval()
    x = torch.randn(1, 18, 8)
    grid = Grid(2, 3, 3)
    with torch.no_grad():
        middle = x + block.attn(block.norm1(x), grid, True)
        assert torch.equal(block(x, grid), middle + block.mlp(block.norm2(middle)))
