"""A block that the adapter does not understand is refused when a reducer is attached."""

from __future__ import annotations

import pytest
import torch

from tokred.backbones.adapter import Attended, Unsupported
from tokred.backbones.verify import verify_adapter
from tokred.backbones.video_vit_adapter import VideoViTAdapter
from tokred.backbones.videomae import VideoViT


class ForgetsLayerScale(VideoViTAdapter):
    """What the official ToMe patch does on newer models."""

    def attend(self, block, tokens, log_size):
        right = super().attend(block, tokens, log_size)
        y = block.norm1(tokens.x)
        return Attended(tokens.x + block.attn(y), right.q, right.k, right.v, right.scale)


def small(**changes) -> VideoViT:
    return VideoViT(img_size=16, patch_size=8, frames=4, dim=24, depth=3, num_heads=2, num_classes=3, **changes)


def test_the_right_adapter_passes_in_every_precision() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        verify_adapter(VideoViTAdapter(), small(init_values=0.5).to(dtype))


def test_a_dropped_layer_scale_is_refused_with_block_and_error() -> None:
    with pytest.raises(Unsupported, match=r"block 0 .*differs from its own forward by"):
        verify_adapter(ForgetsLayerScale(), small(init_values=0.5))
    verify_adapter(ForgetsLayerScale(), small())


def test_training_flags_and_random_state_stay() -> None:
    model = small(drop_path=0.3).train()
    model.blocks[1].mlp.eval()
    before = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    verify_adapter(VideoViTAdapter(), model)
    assert [m.training for m in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_without_memory_is_not_run() -> None:
    with torch.device("meta"):
        verify_adapter(VideoViTAdapter(), small())
