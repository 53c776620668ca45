"""Attach on variants of the video host: other parts, other clip sizes, other pooling."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokred.attach import attach
from tokred.backbones.videomae import VideoViT
from tokred.methods import STA, EViT, FewerFrames, RandomMerge, ToMe, TopK, Unreduced
from tokred.schedule import ScheduleError


def video(**changes: object) -> tuple[VideoViT, Tensor]:
    """A video ViT of 4 x 4 x 4 patches with other settings."""
    settings: dict[str, object] = {
        "img_size": 16, "patch_size": 4, "frames": 8, "dim": 24, "depth": 3, "num_heads": 3, "num_classes": 7,
    }  # fmt: skip
    return VideoViT(**(settings | changes)).eval(), torch.randn(2, 3, 8, 16, 16)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes", [{"init_values": 0.3}, {"qkv_bias": False}, {"mean_pooling": False}, {"positions": "grid"}]
)
@torch.no_grad()
def test_variants_of_the_host_are_themselves_at_strength_zero(changes: dict[str, object]) -> None:
    host, clips = video(**changes)
    assert torch.equal(attach(host, ToMe())(clips), host(clips))
    apart = attach(host, TopK(0.9999))(clips)  # taken apart, and every token kept
    torch.testing.assert_close(apart, host(clips), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_clips_of_another_size_are_reduced_too_where_that_is_possible() -> None:
    host, _ = video()
    longer = torch.randn(1, 3, 16, 16, 16)
    assert attach(host, STA(r=4)).run(longer).tokens.count == 8 * (16 - 4 - 2 - 1)
    with pytest.raises(ValueError, match="planned for the model's 4 tubelets of time, the clips have 8"):
        attach(host, FewerFrames(2))(longer)
    large, _ = video(img_size=32)
    fast = attach(large, EViT(tokens=100, at=(0,)))
    with pytest.raises(ScheduleError, match="impossible with 64 tokens"):
        fast(torch.randn(1, 3, 8, 16, 16))


@torch.no_grad()
def test_mean_pooling_by_mass_is_the_mean_over_patches() -> None:
    """If merged tokens are not touched any more, weighting by mass gives the mean over all original patches."""
    host, clips = video()
    merged = attach(host, RandomMerge(0.5, at=(2,))).run(clips)
    host_tokens = attach(host, Unreduced()).run(clips).tokens
    assert merged.tokens.size is not None
    weighted = (merged.tokens.x * merged.tokens.size[..., None]).sum(1) / merged.tokens.size.sum(1, keepdim=True)
    torch.testing.assert_close(weighted, host_tokens.x.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(merged.logits, host(clips), rtol=1e-4, atol=1e-5)
