"""The small image ViT: timm's own class, its weights under timm's names, strict loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tokred.attach import attach
from tokred.backbones import adapter_for, zoo
from tokred.backbones.convert import CheckpointError
from tokred.backbones.image_vit import build_image_vit, save_image_vit
from tokred.backbones.spec import backbone_info
from tokred.backbones.zoo import backbone_spec, create_backbone
from tokred.data.pictures import CIFAR10_CLASSES
from tokred.registry import build

SMALL: dict[str, Any] = {"img_size": 16, "dim": 24, "depth": 2}


def stored(path: Path, **sizes: Any) -> nn.Module:
    """A file of random weights, and the model that they are of."""
    torch.manual_seed(3)
    model = build_image_vit(**sizes).half().float().eval()
    save_image_vit(model.state_dict(), path, source="a test", dtype=torch.float16, metadata={"recipe": "none"})
    return model


def info_of(model: nn.Module) -> Any:
    info = backbone_info(model)
    assert info is not None
    return info


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A stand-in for the embedded weights."""
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)
    return stored(tmp_path / "vit_nano.safetensors")


def test_it_is_timms_class_with_a_class_token() -> None:
    model = create_backbone("vit_nano", pretrained=False)
    assert type(model).__module__ == "timm.models.vision_transformer"
    geometry = adapter_for(model).geometry(model)
    assert geometry.has_class_token
    assert (geometry.tokens, geometry.depth, geometry.dim, geometry.classes) == (65, 8, 96, 10)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    spec = info_of(model).spec
    assert (spec.frames, spec.size, spec.layout, spec.label_sets) == (1, (32, 32), "BCHW", ())
    assert "weights are random" in info_of(model).notes[0]


def test_the_embedded_weights_know_their_classes(embedded: nn.Module) -> None:
    model = create_backbone("vit_nano")
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(pictures), embedded(pictures))
    assert not model.training
    info = info_of(model)
    assert (info.weights, info.checkpoint) == ("embedded", None)
    assert info.spec.label_sets == backbone_spec("vit_nano").label_sets
    assert info.spec.label_sets[0].classes == CIFAR10_CLASSES
    clips = pictures[:, :, None]
    assert torch.equal(info.spec.arrange(clips), pictures)


def test_a_new_head_knows_no_classes(embedded: nn.Module) -> None:
    model = create_backbone("vit_nano", num_classes=3)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)
    assert info_of(model).spec.label_sets == ()
    assert any("the new one is not trained" in note for note in info_of(model).notes)


@pytest.mark.parametrize("spec", ["tome:r=4", "evit:keep=0.7", "topk:keep=0.5"])
def test_methods_with_a_class_token_attach_unchanged(embedded: nn.Module, spec: str) -> None:
    fast = attach(create_backbone("vit_nano"), build(spec))
    assert fast(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert fast.plan.final < 65


def test_a_checkpoint_sets_the_classes(tmp_path: Path) -> None:
    source = stored(tmp_path / "mine.safetensors", **SMALL, num_classes=4)
    model = create_backbone("vit_nano", tmp_path / "mine.safetensors", **SMALL)
    pictures = torch.randn(1, 3, 16, 16)
    assert torch.equal(model(pictures), source(pictures))
    assert info_of(model).spec.size == (16, 16)
    assert info_of(model).spec.label_sets == ()
    assert info_of(model).checkpoint == str(tmp_path / "mine.safetensors")


def test_weights_that_do_not_fit_are_refused(embedded: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="pretrained=False builds vit_nano with depth changed"):
        create_backbone("vit_nano", depth=3)
    stored(tmp_path / "mine.safetensors", **SMALL)
    with pytest.raises(CheckpointError, match="does not fit"):
        create_backbone("vit_nano", tmp_path / "mine.safetensors")
    data = bytearray((tmp_path / "vit_nano.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "vit_nano.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="it was damaged"):
        create_backbone("vit_nano")


def test_wrong_sizes_are_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match="patch_size = 5 does not divide img_size = 32"):
        create_backbone("vit_nano", pretrained=False, patch_size=5)
    with pytest.raises(ValueError, match="num_heads = 5 does not divide dim = 96"):
        create_backbone("vit_nano", pretrained=False, num_heads=5)
    with pytest.raises(ValueError, match="vit_nano does not take frames; it takes img_size"):
        create_backbone("vit_nano", pretrained=False, frames=3)
