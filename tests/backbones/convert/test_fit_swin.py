"""Swin checkpoints loaded into a model: every layout gives the same logits, and what does not fit says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokred.backbones.convert import CheckpointError, load_checkpoint, read_checkpoint, save_weights, to_official
from tokred.backbones.spec import backbone_info
from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.window_layout import relative_index
from tokred.backbones.zoo import create_backbone

TINY: dict[str, Any] = {
    "img_size": 16,
    "frames": 4,
    "dim": 8,
    "depths": (1, 2),
    "num_heads": (2, 4),
    "window": (2, 3, 3),
}


def tiny(seed: int = 1, **changes: Any) -> VideoSwin:
    torch.manual_seed(seed)
    model = VideoSwin(**{"num_classes": 5, **TINY, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def official(state: dict[str, Tensor], index: bool) -> dict[str, Tensor]:
    """Names as in the release files, with or without the constant indices."""
    out = {}
    for name, tensor in state.items():
        out[name.replace("head.", "cls_head.fc_cls.") if name.startswith("head.") else f"backbone.{name}"] = tensor
        if index and name.endswith("relative_position_bias_table"):
            out[f"backbone.{name.replace('bias_table', 'index')}"] = relative_index(TINY["window"])
    return out


def torchvisions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names, written out here on its own: the other direction of the converter."""
    out = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "layers":
            i = 2 * int(parts[1])
            parts = ["features", str(i), *parts[3:]] if parts[2] == "blocks" else ["features", str(i + 1), *parts[3:]]
        out[".".join(parts).replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = tensor
    return out


def as_released(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"meta": {"epoch": 30}, "state_dict": official(state, index=True)}


def without_index(state: dict[str, Tensor]) -> dict[str, Any]:
    return {"state_dict": official(state, index=False)}


def as_torchvision(state: dict[str, Tensor]) -> dict[str, Any]:
    return torchvisions(state)


@pytest.mark.parametrize(
    ("layout", "called"),
    [
        (as_released, "official Video Swin"),
        (without_index, "official Video Swin"),
        (as_torchvision, "torchvision SwinTransformer3d"),
    ],
)
def test_every_layout_gives_the_same_logits(
    tmp_path: Path, layout: Callable[[dict[str, Tensor]], dict[str, Any]], called: str
) -> None:
    model = tiny()
    torch.save(layout(model.state_dict()), tmp_path / "weights.pth")
    found = create_backbone("videoswin_tiny", tmp_path / "weights.pth", **TINY)
    clips = torch.randn(2, 3, 5, 18, 18)
    with torch.no_grad():
        assert torch.equal(found(clips), model(clips))
    info = backbone_info(found)
    assert info is not None
    assert info.weights == called
    assert info.spec.frames == 4


def test_weights_that_we_write_we_read(tmp_path: Path) -> None:
    model = tiny()
    save_weights(model, tmp_path / "w.safetensors", source="a test")
    assert read_checkpoint(tmp_path / "w.safetensors").layout == "tokred-swin"
    other = tiny(2)
    loaded = load_checkpoint(other, tmp_path / "w.safetensors")
    assert loaded.layout == "tokred-swin"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_an_image_model_is_inflated(tmp_path: Path) -> None:
    flat = tiny(window=(1, 3, 3), patch_size=(1, 4, 4))
    state = dict(flat.state_dict())
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    state["layers.1.blocks.1.attn_mask"] = torch.zeros(4, 9, 9)
    torch.save({"model": state}, tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match="num_classes=N"):
        create_backbone("videoswin_tiny", tmp_path / "swin.pth", **TINY)
    found = create_backbone("videoswin_tiny", tmp_path / "swin.pth", num_classes=5, **TINY)
    info = backbone_info(found)
    assert info is not None
    assert any("inflated" in note for note in info.notes)
    assert any("head of the image classes, ignored" in note for note in info.notes)
    # A clip of one image four times, without attention over time, is that image.
    image = torch.randn(1, 3, 1, 16, 16)
    clip = image.expand(-1, -1, 2, -1, -1)
    with torch.no_grad():
        assert isinstance(found, VideoSwin)
        torch.testing.assert_close(found.forward_features(clip), flat.forward_features(image))


def test_a_model_with_other_heads_refuses_an_image_model(tmp_path: Path) -> None:
    state = dict(tiny(window=(1, 3, 3), patch_size=(1, 4, 4)).state_dict())
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"][:, :, 0]
    torch.save({"model": state}, tmp_path / "swin.pth")
    with pytest.raises(CheckpointError, match=r"swin\.pth.*has 2 heads, the model has 1 in stage 0"):
        create_backbone("videoswin_tiny", tmp_path / "swin.pth", num_classes=5, **{**TINY, "num_heads": (1, 4)})


def test_another_window_is_refused_with_the_likely_one(tmp_path: Path) -> None:
    torch.save({"state_dict": official(tiny().state_dict(), index=False)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"perhaps \(2, 3, 3\)"):
        create_backbone("videoswin_tiny", tmp_path / "weights.pth", **{**TINY, "window": (4, 3, 3)})


def test_an_index_that_is_not_the_windows_is_refused() -> None:
    model = tiny()
    state = official(model.state_dict(), index=True)
    name = next(name for name in state if name.endswith("relative_position_index"))
    state[name] = state[name].flip(0)
    from tokred.backbones.convert import Checkpoint
    from tokred.backbones.convert.layouts import to_original

    named = to_original(state)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"is not the index of window \(2, 3, 3\)"):
        load_checkpoint(model, Checkpoint("memory", named.layout, False, named.state))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_families_are_not_mixed(tmp_path: Path) -> None:
    save_weights(tiny(), tmp_path / "swin.safetensors", source="a test")
    vit = VideoViT(img_size=16, patch_size=8, frames=4, dim=12, depth=1, num_heads=2, num_classes=5)
    with pytest.raises(CheckpointError, match=r"Video Swin.* is not for a VideoViT"):
        load_checkpoint(vit, tmp_path / "swin.safetensors")
    save_weights(vit, tmp_path / "vit.safetensors", source="a test")
    with pytest.raises(CheckpointError, match="is not for a VideoSwin"):
        load_checkpoint(tiny(), tmp_path / "vit.safetensors")


def test_another_number_of_classes_needs_to_be_asked_for(tmp_path: Path) -> None:
    torch.save(torchvisions(tiny().state_dict()), tmp_path / "weights.pth")
    assert (
        create_backbone("videoswin_tiny", tmp_path / "weights.pth", **TINY)(torch.randn(1, 3, 4, 16, 16)).shape[1] == 5
    )
    found = create_backbone("videoswin_tiny", tmp_path / "weights.pth", num_classes=3, **TINY)
    info = backbone_info(found)
    assert info is not None
    assert any("head of 5 classes dropped" in note for note in info.notes)


def test_two_models_in_one_file_are_refused(tmp_path: Path) -> None:
    state = {**official(tiny().state_dict(), index=False), **torchvisions(tiny().state_dict())}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="holds more than one model"):
        create_backbone("videoswin_tiny", tmp_path / "weights.pth", **TINY)


def test_official_names_leave_out_the_constants() -> None:
    model = tiny()
    found = to_official(official(model.state_dict(), index=True))
    assert set(found) == set(model.state_dict())
