from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tokred.backbones import Unsupported
from tokred.backbones.video_vit_adapter import VideoViTAdapter
from tokred.backbones.videomae import VideoViT
from tokred.reducer import SmallerInput
from tokred.tokens import Grid, Tokens

ADAPTER = VideoViTAdapter()


def model(**changes: Any) -> VideoViT:
    settings: dict[str, Any] = {
        "img_size": (16, 24),
        "patch_size": 4,
        "frames": 8,
        "dim": 24,
        "depth": 2,
        "num_heads": 3,
    }
    return VideoViT(**(settings | {"num_classes": 7, "mlp_ratio": 2} | changes)).eval()


CLIPS = torch.randn(2, 3, 8, 16, 24, generator=torch.Generator().manual_seed(0))


def test_the_geometry_is_that_of_the_model() -> None:
    found = ADAPTER.geometry(model())
    assert (found.depth, found.dim, found.heads, found.head_dim, found.mlp_hidden) == (2, 24, 3, 8, 48)
    assert (found.grid, found.prefix, found.classes, found.kernel) == (Grid(4, 4, 6), 0, 7, (2, 4, 4))
    assert not found.final_norm_tokens
    assert ADAPTER.geometry(model(mean_pooling=False)).final_norm_tokens


@pytest.mark.parametrize("changes", [{}, {"init_values": 0.3}, {"qkv_bias": False}, {"mean_pooling": False}])
@torch.no_grad()
def test_both_halves_of_a_block_are_the_block(changes: dict[str, Any]) -> None:
    host = model(**changes)
    tokens = ADAPTER.embed(host, CLIPS, None)
    assert (tokens.grid, tokens.groups, tokens.prefix) == (Grid(4, 4, 6), 4, 0)
    x = tokens.x
    for block in ADAPTER.blocks(host):
        attended = ADAPTER.attend(block, Tokens(x, Grid(1, 1, x.shape[1])), None)
        fed = ADAPTER.feed(block, attended.x)
        x = block(x)
        torch.testing.assert_close(fed.x, x)
        assert attended.q.shape == attended.k.shape == attended.v.shape == (2, 3, 96, 8)
        scale = 1.0 if not changes.get("init_values") else block.gamma_2  # type: ignore[union-attr]
        torch.testing.assert_close(attended.x + scale * fed.branch, x)
    features = ADAPTER.features(host, tokens.with_x(x), "mean")
    assert torch.equal(features, host.forward_features(CLIPS))
    assert torch.equal(ADAPTER.classify(host, features, tokens, "mean"), host(CLIPS))


@torch.no_grad()
def test_a_smaller_input_takes_its_positions_along() -> None:
    host = model(positions="learned")
    full = host.embed(CLIPS).reshape(2, 4, 24, 24)
    fewer = ADAPTER.embed(host, CLIPS, SmallerInput(Grid(2, 4, 6), (0, 3)))
    assert fewer.groups == 2
    torch.testing.assert_close(fewer.x, full[:, [0, 3]].flatten(1, 2))
    lower = ADAPTER.embed(host, CLIPS, SmallerInput(Grid(4, 2, 3)))
    assert lower.x.shape == (2, 24, 24)


def test_the_input_is_read_by_position_or_name() -> None:
    assert ADAPTER.read_input((CLIPS,), {}) is CLIPS
    assert ADAPTER.read_input((), {"clips": CLIPS}) is CLIPS
    with pytest.raises(TypeError, match="unexpected keyword argument 'mask'"):
        ADAPTER.read_input((CLIPS,), {"mask": CLIPS})


def test_a_model_that_computes_something_else_is_refused() -> None:
    class Other(VideoViT):
        def forward_features(self, clips: Tensor) -> Tensor:
            return super().forward_features(clips) * 2

    with pytest.raises(Unsupported, match=r"Other \(.*\) overrides VideoViT\.forward_features"):
        ADAPTER.check(Other(img_size=16, patch_size=4, frames=4, dim=24, depth=1, num_heads=3))
    replaced = model()
    replaced.blocks[1].attn = torch.nn.Identity()  # type: ignore[union-attr]
    with pytest.raises(Unsupported, match=r"block 1's attn is a torch.* understood: Attention"):
        ADAPTER.check(replaced)
    ADAPTER.check(model())
