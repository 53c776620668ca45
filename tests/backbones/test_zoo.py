from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tokred
from tokred.backbones import zoo
from tokred.backbones.convert import CheckpointError, save_weights, weights_digest
from tokred.backbones.spec import BackboneSpec, backbone_info
from tokred.backbones.videomae import VideoViT
from tokred.backbones.zoo import SPECS, UnknownBackbone, backbone_spec, create_backbone, list_backbones

SMALL: dict[str, Any] = {"img_size": 32, "frames": 4, "dim": 24, "depth": 2, "num_heads": 3}


def info_of(model: torch.nn.Module) -> Any:
    info = backbone_info(model)
    assert info is not None
    return info


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoViT:
    """A stand-in for the embedded weights of the nano model."""
    torch.manual_seed(5)
    model = VideoViT(**backbone_spec("videomae_vit_nano").builder).eval()
    save_weights(model, tmp_path / "videomae_vit_nano.safetensors", source="a test", dtype=torch.float16)
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)
    return model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        torch.manual_seed(6)
        path = tmp_path / "weights.pth"
        torch.save({"model": VideoViT(**{**SMALL, "num_classes": 7, **changes}).state_dict()}, path)
        return path

    return write


def test_the_names() -> None:
    assert list_backbones() == [
        *(f"videomae_vit_{size}" for size in ("nano", "small", "base", "large", "huge")),
        *(f"videoswin_{size}" for size in ("nano", "tiny", "small", "base", "base_w16")),
        "vit_nano",
        "vivit_nano",
        "vivit_base",
    ]
    assert tokred.create_backbone is create_backbone


@pytest.mark.parametrize(
    ("size", "dim", "depth", "heads"),
    [("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16), ("huge", 1280, 32, 16)],
)
def test_published_sizes(size: str, dim: int, depth: int, heads: int) -> None:
    with torch.device("meta"):
        model = create_backbone(f"videomae_vit_{size}")
    assert isinstance(model, VideoViT)
    assert (model.dim, len(model.blocks), model.blocks[0].attn.num_heads) == (dim, depth, heads)
    assert (model.grid, model.frames, model.img_size, model.num_classes) == ((8, 14, 14), 16, (224, 224), 400)
    assert model.patch_embed.proj.kernel_size == (2, 16, 16)
    assert not model.training
    spec = backbone_spec(f"videomae_vit_{size}")
    assert (spec.frames, spec.size, spec.stride, spec.layout) == (16, (224, 224), 4, "BCTHW")
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.family in zoo.FAMILIES])
def test_a_spec_says_what_its_builder_builds(name: str) -> None:
    spec = SPECS[name]
    with torch.device("meta"):
        model = zoo.FAMILIES[spec.family](**spec.builder)
    assert (spec.frames, spec.size) == (model.frames, model.img_size)
    assert sum(len(labels.classes) for labels in spec.label_sets) in (0, model.num_classes)


def test_the_nano_model_speaks_of_the_synthetic_data_set() -> None:
    from tokred.data.synthetic import SyntheticActions

    source = SyntheticActions(clips=1)
    spec = backbone_spec("videomae_vit_nano")
    assert spec.label_sets == source.label_sets
    assert spec.size == (source.size, source.size)
    assert spec.frames == source.frames


def test_the_shipped_weights_load_and_are_small() -> None:
    files = sorted(zoo.WEIGHTS_FOLDER.glob("*"))
    stored = {file.name for file in files if file.suffix == ".safetensors" and "-" not in file.name}
    assert stored <= {spec.weights for spec in SPECS.values()}
    assert sum(file.stat().st_size for file in files) < 16_000_000
    info = info_of(create_backbone("videomae_vit_nano"))
    assert (info.weights, info.checkpoint) == ("embedded", None)
    assert len(info.spec.label_sets) == 2
    with safe_open(str(zoo.WEIGHTS_FOLDER / "videomae_vit_nano.safetensors"), "pt") as stream:
        assert {"source", "sha256", "converter"} <= set(stream.metadata())


def test_embedded_weights_are_used_by_default(embedded: VideoViT) -> None:
    model = create_backbone("videomae_vit_nano")
    rounded = {name: tensor.half().float() for name, tensor in embedded.state_dict().items()}
    assert weights_digest(model) == weights_digest(rounded)
    info = info_of(model)
    assert (info.weights, info.checkpoint) == ("embedded", None)
    assert info.notes == ("stored as float16, loaded as float32",)
    assert [labels.name for labels in info.spec.label_sets] == ["appearance", "motion"]
    assert weights_digest(create_backbone("videomae_vit_nano", pretrained=True)) == weights_digest(model)


def test_random_weights_are_said_to_be_random(embedded: VideoViT) -> None:
    for model in (
        create_backbone("videomae_vit_nano", pretrained=False),
        create_backbone("videomae_vit_small", **SMALL),
    ):
        info = info_of(model)
        assert (info.weights, info.checkpoint, info.spec.label_sets) == ("random", None, ())
        assert info.notes == ("weights are random: none were given",)


def test_a_new_head_of_the_embedded_model_knows_no_classes(embedded: VideoViT) -> None:
    info = info_of(create_backbone("videomae_vit_nano", num_classes=3))
    assert info.spec.label_sets == ()
    assert "head of 18 classes dropped, new head of 3 classes not trained" in info.notes


def test_embedded_weights_do_not_fit_another_shape(embedded: VideoViT) -> None:
    with pytest.raises(CheckpointError, match=r"missing: .*pretrained=False builds videomae_vit_nano with depth") as e:
        create_backbone("videomae_vit_nano", depth=11)
    assert "blocks.10.norm1.weight" in e.value.missing
    model = create_backbone("videomae_vit_nano", frames=32)
    assert isinstance(model, VideoViT)
    assert info_of(model).spec.frames == 32


def test_the_number_of_classes_comes_from_the_checkpoint(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint()
    model = create_backbone("videomae_vit_base", path, **SMALL)
    assert isinstance(model, VideoViT)
    assert model.num_classes == 7
    info = info_of(model)
    assert (info.checkpoint, info.weights, info.notes) == (str(path), "original VideoMAE", ())
    assert (info.spec.frames, info.spec.size) == (4, (32, 32))


def test_another_number_of_classes_starts_a_new_head_and_says_so(checkpoint: Callable[..., Path]) -> None:
    model = create_backbone("videomae_vit_base", checkpoint(), num_classes=3, **SMALL)
    assert isinstance(model, VideoViT)
    assert model.num_classes == 3
    assert info_of(model).notes == ("head of 7 classes dropped, new head of 3 classes not trained",)
    assert info_of(create_backbone("videomae_vit_base", checkpoint(), num_classes=7, **SMALL)).notes == ()


def test_a_checkpoint_without_a_head_needs_a_number_of_classes(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint()
    weights = torch.load(path, weights_only=True)["model"]
    torch.save({f"encoder.{n}": t for n, t in weights.items() if not n.startswith(("head", "fc_norm"))}, path)
    with pytest.raises(CheckpointError, match=r"missing: fc_norm\.weight.*the file has no head: num_classes=N asks"):
        create_backbone("videomae_vit_base", path, **SMALL)
    notes = info_of(create_backbone("videomae_vit_base", path, num_classes=3, **SMALL)).notes
    assert notes == ("not in the file, not trained: fc_norm.weight, fc_norm.bias, head.weight, head.bias",)


def test_a_checkpoint_of_another_size_is_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match="does not fit the model"):
        create_backbone("videomae_vit_base", checkpoint(), **{**SMALL, "depth": 3})


def test_a_created_model_can_be_copied_and_pickled(embedded: VideoViT) -> None:
    model = create_backbone("videomae_vit_nano")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert weights_digest(twin) == weights_digest(model)
        assert backbone_info(twin) == backbone_info(model)


@pytest.mark.parametrize(
    ("name", "close"),
    [("videomae_vit_bse", "videomae_vit_base"), ("videomae-vit-small", "videomae_vit_small"), ("timm", ""), ("", "")],
)
def test_unknown_names_are_answered_with_close_ones(name: str, close: str) -> None:
    for ask in (create_backbone, backbone_spec):
        with pytest.raises(UnknownBackbone, match="no backbone is named") as caught:
            ask(name)
        message = str(caught.value)
        assert f"no backbone is named {name!r}" in message
        assert ("close: " in message and close in message) if close else "close: " not in message
        assert "timm/NAME, hf/FOLDER" in message


def test_a_timm_name_without_its_prefix_is_recognised() -> None:
    with pytest.raises(UnknownBackbone, match=r"close: timm/vit_tiny_patch16_224"):
        create_backbone("vit_tiny_patch16_224")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "videomae_vit_base", "pretrained": True}, "videomae_vit_base has no embedded weights"),
        (
            {"name": "timm/vit_tiny_patch16_224", "pretrained": True},
            "has no embedded weights and nothing is downloaded",
        ),
        (
            {"name": "videomae_vit_nano", "checkpoint": "a.pth", "pretrained": True},
            "pretrained=True and checkpoint='a.pth' exclude each other",
        ),
        (
            {"name": "videomae_vit_nano", "patches": 3, "deep": 1},
            "videomae_vit_nano does not take patches, deep; it takes",
        ),
        ({"name": "hf/x", "checkpoint": "a.pth"}, "hf/x has sizes and weights of its own and does not take checkpoint"),
        ({"name": "hf/x", "depth": 3}, "hf/x has sizes and weights of its own and does not take depth"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_backbone(**arguments)


def test_impossible_overrides_are_refused_by_the_model() -> None:
    with pytest.raises(ValueError, match="num_heads = 5 does not divide dim = 768"):
        create_backbone("videomae_vit_base", num_heads=5)


def test_embedded_weights_do_not_go_into_a_model_without_memory(embedded: VideoViT) -> None:
    with torch.device("meta"), pytest.raises(CheckpointError, match="meta device"):
        create_backbone("videomae_vit_nano")


def test_specs_are_frozen() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        backbone_spec("videomae_vit_base").frames = 3  # type: ignore[misc]
    assert isinstance(SPECS["videomae_vit_base"], BackboneSpec)


def test_the_zoo_loads_no_other_library() -> None:
    code = (
        "import sys, tokred; tokred.create_backbone('videomae_vit_nano', pretrained=False); "
        "print([m for m in ('timm', 'transformers', 'av', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
