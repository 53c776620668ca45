"""Checkpoints of the factorised ViViT: official names in, the same model out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokred.backbones.convert import CheckpointError, load_checkpoint, save_weights
from tokred.backbones.vivit import ViViT
from tokred.backbones.zoo import create_backbone

SIZES = {"img_size": 32, "patch_size": 8, "frames": 8, "dim": 24, "depth": 2, "temporal_depth": 1, "num_heads": 3}


def build(**changes: int) -> ViViT:
    return ViViT(**{**SIZES, "num_classes": 5, **changes}).eval()


def official(model: ViViT) -> dict[str, Tensor]:
    """Its weights as the official code names them."""
    return {
        f"classifier.{name.removeprefix('head.')}" if name.startswith("head.") else name: tensor.clone()
        for name, tensor in model.state_dict().items()
    }


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_weights_give_the_same_logits(tmp_path: Path, prefix: str) -> None:
    model, other = build(), build()
    torch.save({"model": {prefix + k: v for k, v in official(model).items()}}, tmp_path / "vivit.pth")
    loaded = load_checkpoint(other, tmp_path / "vivit.pth")
    assert loaded.layout == "vivit"
    clips = torch.randn(1, 3, 8, 32, 32)
    assert torch.equal(other(clips), model(clips))


def test_saved_weights_are_read_back(tmp_path: Path) -> None:
    model, other = build(), build()
    save_weights(model, tmp_path / "w.safetensors", source="test")
    assert load_checkpoint(other, tmp_path / "w.safetensors").layout == "tokred-vivit"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_positions_of_another_size_are_resampled_and_noted(tmp_path: Path) -> None:
    save_file(official(build(img_size=48)), tmp_path / "w.safetensors")
    model = build()
    loaded = load_checkpoint(model, tmp_path / "w.safetensors")
    assert "spatial positions resampled bicubically from 6x6 to 4x4" in loaded.notes


def test_what_does_not_fit_is_refused_with_the_reason(tmp_path: Path) -> None:
    save_file(official(build(frames=16)), tmp_path / "long.safetensors")
    with pytest.raises(CheckpointError, match="positions for 8 steps, the model takes 4: frames=N"):
        load_checkpoint(build(), tmp_path / "long.safetensors")
    with pytest.raises(CheckpointError, match="is not for a VideoViT"):
        create_backbone("videomae_vit_small", tmp_path / "long.safetensors")
    with pytest.raises(CheckpointError, match="num_classes=N asks for a new head"):
        load_checkpoint(build(frames=16, num_classes=6), tmp_path / "long.safetensors")
