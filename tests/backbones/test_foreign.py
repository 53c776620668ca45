from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tokred.backbones.convert import CheckpointError
from tokred.backbones.spec import BackboneInfo, backbone_info, logits_of
from tokred.backbones.zoo import create_backbone

TIMM = "timm/vit_tiny_patch16_224"
TINY = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}


def info_of(model: nn.Module) -> BackboneInfo:
    info = backbone_info(model)
    assert info is not None
    return info


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a library look as if it were not installed."""
    real = builtins.__import__

    def hide(library: str) -> None:
        def stop(name: str, *args: Any, **kwargs: Any) -> Any:
            if name.partition(".")[0] == library:
                raise ImportError(f"No module named {library!r}")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", stop)

    return hide


# timm


def test_a_timm_model_is_built_without_weights() -> None:
    model = create_backbone(TIMM, num_classes=5, **TINY)
    assert not model.training
    info = info_of(model)
    assert (info.weights, info.checkpoint) == ("random", None)
    assert info.notes == ("weights are random: none were given",)
    assert (info.spec.name, info.spec.frames, info.spec.size, info.spec.layout) == (TIMM, 1, (32, 32), "BCHW")
    assert info.spec.mean == (0.5, 0.5, 0.5), "from timm's own settings"
    clips = info.spec.arrange(torch.randn(2, 3, 1, 32, 32))
    assert logits_of(model(clips)).shape == (2, 5)


def test_a_timm_model_takes_its_number_of_classes_from_a_file(tmp_path: Path) -> None:
    trained = create_backbone(TIMM, num_classes=5, **TINY)
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "w.pth")
    model = create_backbone(TIMM, tmp_path / "w.pth", **TINY)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(x), trained(x))
    assert (info_of(model).weights, info_of(model).checkpoint) == ("timm", str(tmp_path / "w.pth"))
    assert info_of(model).notes == ()


def test_a_new_timm_head_is_noted(tmp_path: Path) -> None:
    torch.save(create_backbone(TIMM, num_classes=5, **TINY).state_dict(), tmp_path / "w.pth")
    model = create_backbone(TIMM, tmp_path / "w.pth", num_classes=3, **TINY)
    assert info_of(model).notes == ("head of the file dropped, the new one is not trained",)
    bare = create_backbone(TIMM, tmp_path / "w.pth", num_classes=0, **TINY)
    assert info_of(bare).notes == ("head of the file dropped, none was asked for",)


def test_both_heads_of_a_distilled_model_start_anew(tmp_path: Path) -> None:
    name = "timm/deit_tiny_distilled_patch16_224"
    torch.save(create_backbone(name, num_classes=5, **TINY).state_dict(), tmp_path / "w.pth")
    notes = info_of(create_backbone(name, tmp_path / "w.pth", num_classes=3, **TINY)).notes
    assert len(notes) == 2


def test_a_timm_file_that_does_not_fit_names_every_key(tmp_path: Path) -> None:
    state = create_backbone(TIMM, num_classes=5, **TINY).state_dict()
    del state["norm.bias"]
    torch.save({**state, "extra": torch.zeros(1), "norm.weight": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not fit the model") as caught:
        create_backbone(TIMM, tmp_path / "w.pth", **TINY)
    assert (caught.value.missing, caught.value.unexpected) == (("norm.bias",), ("extra",))
    assert caught.value.misshaped == ("norm.weight",)


def test_an_unknown_timm_name_is_answered_with_close_ones() -> None:
    with pytest.raises(ValueError, match=r"timm .* has no model 'vit_tiny_patch17_224'; close: timm/vit_tiny_patch16"):
        create_backbone("timm/vit_tiny_patch17_224")


def test_arguments_that_timm_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match=r"timm/vit_tiny_patch16_224 refuses no_such_thing: "):
        create_backbone(TIMM, no_such_thing=1)


def test_without_timm_the_message_says_what_to_install(without: Callable[[str], None]) -> None:
    without("timm")
    with pytest.raises(ImportError, match="timm/vit_tiny_patch16_224 needs timm: pip install timm"):
        create_backbone(TIMM)
    with pytest.raises(ValueError, match="no backbone is named 'vit_tiny_patch16_224'; known"):
        create_backbone("vit_tiny_patch16_224")


# transformers


@pytest.fixture
def config() -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    return transformers.VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        num_labels=5,
    )


@pytest.fixture
def folder(tmp_path: Path, config: Any) -> tuple[Path, nn.Module]:
    import transformers

    torch.manual_seed(3)
    model = transformers.VideoMAEForVideoClassification(config).eval()
    model.save_pretrained(tmp_path)
    return tmp_path, model


def test_a_local_folder_gives_the_model_that_was_saved(folder: tuple[Path, nn.Module]) -> None:
    place, trained = folder
    (place / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    model = create_backbone(f"hf/{place}")
    info = info_of(model)
    assert not model.training
    assert (info.spec.frames, info.spec.size, info.spec.layout) == (4, (32, 32), "BTCHW")
    assert (info.spec.mean, info.spec.std) == ((0.1,) * 3, (0.2,) * 3)
    assert (info.weights, info.checkpoint) == ("Hugging Face", str(place / "model.safetensors"))
    assert info.notes == ()
    clips = info.spec.arrange(torch.randn(1, 3, 4, 32, 32))
    assert torch.equal(logits_of(model(clips)), logits_of(trained(clips)))


@pytest.mark.parametrize("old", [True, False], ids=["q_bias", "query.bias"])
def test_both_spellings_of_the_biases_load(folder: tuple[Path, nn.Module], old: bool) -> None:
    place, trained = folder
    pairs = (("query.bias", "q_bias"), ("value.bias", "v_bias"))
    state = {}
    for name, tensor in trained.state_dict().items():
        for new, ancient in pairs:
            name = name.replace(new, ancient) if old else name.replace(ancient, new)
        state[name] = tensor
    (place / "model.safetensors").unlink()
    torch.save(state, place / "pytorch_model.bin")
    clips = torch.randn(1, 4, 3, 32, 32)
    assert torch.equal(logits_of(create_backbone(f"hf/{place}")(clips)), logits_of(trained(clips)))


def test_missing_weights_are_refused_and_not_drawn_at_random(folder: tuple[Path, nn.Module]) -> None:
    place, trained = folder
    state = {name: tensor.half() for name, tensor in trained.state_dict().items() if name != "fc_norm.weight"}
    save_file(state, str(place / "model.safetensors"))
    with pytest.raises(CheckpointError, match=r"1 missing: fc_norm\.weight"):
        create_backbone(f"hf/{place}")


def test_another_precision_and_a_missing_preprocessor_are_noted(folder: tuple[Path, nn.Module]) -> None:
    place, trained = folder
    save_file({name: tensor.half() for name, tensor in trained.state_dict().items()}, str(place / "model.safetensors"))
    model = create_backbone(f"hf/{place}")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert info_of(model).notes == (
        "stored as float16, loaded as float32",
        "no preprocessor_config.json: ImageNet mean and standard deviation are used",
    )


def test_a_new_head_on_a_folder(folder: tuple[Path, nn.Module]) -> None:
    place, _ = folder
    model = create_backbone(f"hf/{place}", num_classes=3)
    assert logits_of(model(torch.randn(1, 4, 3, 32, 32))).shape == (1, 3)
    assert "classifier of the file dropped, the new one is not trained" in info_of(model).notes


def test_only_the_sizes_of_a_folder(folder: tuple[Path, nn.Module]) -> None:
    place, _ = folder
    with torch.device("meta"):
        model = create_backbone(f"hf/{place}", pretrained=False)
    assert next(model.parameters()).is_meta
    assert info_of(model).weights == "random"
    with torch.device("meta"), pytest.raises(CheckpointError, match="meta device"):
        create_backbone(f"hf/{place}")


def test_folders_that_are_none_are_refused(tmp_path: Path, config: Any) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json there; a local folder is needed, nothing is download"):
        create_backbone(f"hf/{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json: is no JSON"):
        create_backbone(f"hf/{tmp_path}")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json: holds a list, not an object"):
        create_backbone(f"hf/{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vivit"}))
    with pytest.raises(CheckpointError, match=r"model_type is 'vivit'; 'videomae' is read"):
        create_backbone(f"hf/{tmp_path}")
    config.save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"holds no weights; one of model\.safetensors, pytorch_model\.bin is read"
    ):
        create_backbone(f"hf/{tmp_path}")


def test_without_transformers_the_message_says_what_to_install(
    folder: tuple[Path, nn.Module], without: Callable[[str], None]
) -> None:
    place, _ = folder
    without("transformers")
    with pytest.raises(ImportError, match=r"needs transformers: pip install 'tokred\[hf\]'"):
        create_backbone(f"hf/{place}")
