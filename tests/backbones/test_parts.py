"""Blocks as operations on each token alone: the same block, on any number of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tokred.backbones import adapter_for
from tokred.backbones.adapter import Unsupported
from tokred.backbones.parts import BlockParts
from tokred.testing import default_backbones

HOSTS = {b.name: b for b in default_backbones() if b.name in ("video", "image")}


@torch.no_grad()
@pytest.mark.parametrize("host", HOSTS)
def test_whole_is_the_block_and_parts_treat_each_token_alone(host: str) -> None:
    model, _ = HOSTS[host].build()
    adapter = adapter_for(model)
    block = adapter.blocks(model)[1]
    parts = adapter.token_parts(block)
    assert parts is not None
    x = torch.randn(2, 9, 24)
    torch.testing.assert_close(parts.whole(x), block(x), atol=1e-5, rtol=1e-5)
    for part in (parts.norm1, parts.qkv, parts.project, parts.feed):
        torch.testing.assert_close(part(x)[:, [2, 5]], part(x[:, [2, 5]]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_bias_and_an_attention_of_its_own_are_used() -> None:
    def nothing(x: Tensor) -> Tensor:
        return x

    linear = nn.Linear(8, 24)
    parts = BlockParts(nothing, linear, nothing, nothing, nothing, 2, 4, 0.5)
    qkv = linear(torch.randn(1, 5, 8))
    q, k, v = parts.split(qkv)
    bias = torch.randn(1, 2, 5, 5)
    biased = BlockParts(nothing, linear, nothing, nothing, nothing, 2, 4, 0.5, bias=lambda q: bias)
    expected = ((q @ k.transpose(-2, -1) * 0.5 + bias).softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(biased.attention(qkv), expected)
    own = BlockParts(nothing, linear, nothing, nothing, nothing, 2, 4, 0.5, attend=lambda qkv: qkv[..., :8] * 2)
    assert torch.equal(own.attention(qkv), qkv[..., :8] * 2)


def test_attention_with_a_gate_is_refused() -> None:
    model, _ = HOSTS["image"].build()
    adapter = adapter_for(model)
    block = adapter.blocks(model)[0]
    block.attn.gate = nn.Linear(24, 24)  # type: ignore[union-attr]
    with pytest.raises(Unsupported, match="gate"):
        adapter.token_parts(block)
