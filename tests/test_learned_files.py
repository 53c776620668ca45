"""Files of learned parameters: written, read back, and refused where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import tokred
from tokred.attach import attach
from tokred.backbones import zoo
from tokred.backbones.videomae import VideoViT
from tokred.learned import LearnedError
from tokred.learned_files import load_learned, save_learned, shipped_weights
from tokred.methods import DynamicViT


def host(dim: int = 24) -> VideoViT:
    return VideoViT(img_size=16, patch_size=8, frames=4, dim=dim, depth=4, num_heads=2, num_classes=3).eval()


@pytest.fixture
def trained() -> DynamicViT:
    reducer = DynamicViT(0.7)
    attach(host(), reducer)
    with torch.no_grad():
        for i, parameter in enumerate(reducer.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)))
    reducer.mark_trained(300, "here")
    return reducer


def saved(reducer: DynamicViT, path: Path) -> Path:
    save_learned(reducer, path, backbone="nano", backbone_sha256="0" * 64, recipe="a recipe", metadata={"top1": "0.9"})
    return path


def test_a_file_brings_the_parameters_back_with_where_they_come_from(trained: DynamicViT, tmp_path: Path) -> None:
    path = saved(trained, tmp_path / "w.safetensors")
    again = tokred.build(f"dynamicvit:keep=0.5,weights={path}")
    fast = attach(host(), again)
    for name, tensor in trained.state_dict().items():
        wanted = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(again.state_dict()[name], wanted), name
    assert fast.notes[-1] == "dynamicvit is trained (300 steps, dynamicvit:keep=0.7 on nano, a recipe)"
    with safe_open(path, "pt") as file:
        assert file.metadata()["top1"] == "0.9"
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16, torch.int64}  # noqa: SIM118
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_is_untrained_is_not_saved(tmp_path: Path) -> None:
    reducer = DynamicViT(0.7)
    attach(host(), reducer)
    with pytest.raises(LearnedError, match="untrained"):
        saved(reducer, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_weights_of_another_width_or_method_are_refused_and_change_nothing(trained: DynamicViT, tmp_path: Path) -> None:
    path = saved(trained, tmp_path / "w.safetensors")
    other = DynamicViT(0.7, weights=str(path))
    with pytest.raises(LearnedError, match=r"has shape \(24\), not \(32\)|has shape \(24,\), not \(32,\)"):
        attach(host(32), other)
    assert not other.trained
    fewer = DynamicViT((0.7,), at=(1,), weights=str(path))
    with pytest.raises(LearnedError, match=r"predictors\.1\..* is unknown"):
        attach(host(), fewer)
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors", {"method": "stts"})
    with pytest.raises(LearnedError, match="weights of 'stts'"):
        load_learned(other, tmp_path / "x.safetensors")
    with pytest.raises(LearnedError, match="no readable safetensors"):
        load_learned(other, tmp_path / "missing.safetensors")


def test_numbers_that_are_not_finite_are_refused(trained: DynamicViT, tmp_path: Path) -> None:
    with torch.no_grad():
        next(trained.parameters())[0] = float("nan")
    path = saved(trained, tmp_path / "w.safetensors")
    with pytest.raises(LearnedError, match="is not finite"):
        load_learned(trained, path)


def test_shipped_weights_belong_to_the_embedded_weights_of_their_backbone(
    trained: DynamicViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nano = tokred.create_backbone("videomae_vit_nano")
    random = tokred.create_backbone("videomae_vit_nano", pretrained=False)
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)
    path = tmp_path / "dynamicvit-videomae_vit_nano.safetensors"
    assert shipped_weights("dynamicvit", nano) is None, "there is no file"
    teacher = DynamicViT(0.7, weights=None)
    attach(nano, teacher)
    teacher.mark_trained(3, "")
    saved(teacher, path)
    assert shipped_weights("dynamicvit", nano) == path
    assert shipped_weights("dynamicvit", random) is None
    assert shipped_weights("dynamicvit", host()) is None
    assert shipped_weights("sta", nano) is None
    for weights, model, expected in (("shipped", nano, True), (None, nano, False), ("shipped", random, False)):
        reducer = DynamicViT(0.6, weights=weights)
        attach(model, reducer)
        assert reducer.trained is expected
