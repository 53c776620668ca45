"""Attention as training writes it out computes what the fused kernels do, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tokred
from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.vivit import ViViT
from tokred.run.train_kernels import working_copy


def models() -> list[nn.Module]:
    torch.manual_seed(1)
    vit = VideoViT(img_size=16, patch_size=8, frames=4, dim=12, depth=2, num_heads=2, num_classes=5)
    swin = VideoSwin(dim=8, depths=(2, 2), num_heads=(2, 4), window=(2, 2, 3), num_classes=5)
    vivit = ViViT(img_size=16, patch_size=8, frames=4, dim=12, depth=2, temporal_depth=1, num_heads=2, num_classes=5)
    return [vit, swin, vivit]


@pytest.mark.parametrize("model", models(), ids=["vit", "swin", "vivit"])
def test_written_out_attention_is_fused_attention(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    copy = working_copy(model, "fp32", "explicit")
    clips = torch.randn(2, 3, 4, 16, 16)
    wanted = model(clips)
    monkeypatch.delattr(torch.nn.functional, "scaled_dot_product_attention")
    found = copy(clips)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    left = torch.autograd.grad(wanted.square().sum(), list(model.parameters()))
    right = torch.autograd.grad(found.square().sum(), list(copy.parameters()))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max()))


@pytest.mark.parametrize("model", models(), ids=["vit", "swin", "vivit"])
def test_blocks_that_a_reducer_leaves_whole_are_written_out_too(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = tokred.attach(model, tokred.build("sta:r=1,at=[1]"))
    copy = working_copy(fast, "fp32", "explicit")
    clips = torch.randn(2, 3, 4, 16, 16)
    wanted, found = fast(clips), copy(clips)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    left = torch.autograd.grad(wanted.square().sum(), list(fast.parameters()))
    right = torch.autograd.grad(found.square().sum(), list(copy.parameters()))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * float(a.abs().max()))
    fused, calls = torch.nn.functional.scaled_dot_product_attention, []

    def counted(*given: Any, **more: Any) -> Tensor:
        calls.append(given)
        return fused(*given, **more)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    copy(clips)
    written_out = len(calls)
    fast(clips)
    assert written_out < len(calls) - written_out


@pytest.mark.parametrize("model", models(), ids=["vit", "swin", "vivit"])
def test_the_copy_has_its_own_weights_in_the_training_precision(model: nn.Module) -> None:
    copy = working_copy(model, "bf16", "fused")
    assert {p.dtype for p in copy.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert copy(torch.randn(1, 3, 4, 16, 16).bfloat16()).dtype == torch.bfloat16
