from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tokred.backbones.convert import CheckpointError, load_checkpoint, read_checkpoint, save_weights, weights_digest
from tokred.backbones.positions import resample, sincos_flat
from tokred.backbones.videomae import VideoViT
from tokred.tokens import Grid

MakeModel = Callable[..., VideoViT]
ToHF = Callable[[dict[str, Tensor], bool], dict[str, Tensor]]
ToTimm = Callable[[VideoViT], dict[str, Tensor]]


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@torch.no_grad()
def logits(model: nn.Module, clips: Tensor) -> Tensor:
    return model(clips)


@pytest.fixture
def fresh(make_model: MakeModel) -> VideoViT:
    """The same sizes, other weights."""
    return make_model(seed=99)


# Layouts that load


@pytest.mark.parametrize("container", ["model", "module", ""])
@pytest.mark.parametrize("prefix", ["", "backbone.", "encoder."])
def test_original_files(
    tmp_path: Path, model: VideoViT, fresh: VideoViT, clips: Tensor, container: str, prefix: str
) -> None:
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    content = {container: state, "epoch": 1, "args": argparse.Namespace(lr=1e-3)} if container else state
    loaded = load_checkpoint(fresh, write(tmp_path / "w.pth", content))
    assert loaded.layout == "videomae"
    assert loaded.notes == ()
    assert loaded.digest == weights_digest(model)
    assert torch.equal(logits(fresh, clips), logits(model, clips))


@pytest.mark.parametrize("old", [True, False], ids=["q_bias", "query.bias"])
def test_hugging_face_files(
    tmp_path: Path, model: VideoViT, fresh: VideoViT, clips: Tensor, to_hf: ToHF, old: bool
) -> None:
    save_file(to_hf(dict(model.state_dict()), old), str(tmp_path / "m.safetensors"), metadata={"format": "pt"})
    loaded = load_checkpoint(fresh, tmp_path / "m.safetensors")
    assert loaded.layout == ("huggingface-old" if old else "huggingface")
    assert torch.equal(logits(fresh, clips), logits(model, clips))


def hf_model(model: VideoViT) -> nn.Module:
    transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
    config = transformers.VideoMAEConfig(
        image_size=32,
        patch_size=8,
        num_frames=4,
        tubelet_size=2,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        num_labels=5,
        layer_norm_eps=1e-6,
    )
    host = transformers.VideoMAEForVideoClassification(config).eval()
    host.fc_norm.eps = 1e-6
    return host


def test_logits_equal_those_of_transformers_both_ways(
    tmp_path: Path, model: VideoViT, fresh: VideoViT, clips: Tensor, to_hf: ToHF
) -> None:
    host = hf_model(model)
    old = any(name.endswith("q_bias") for name in host.state_dict())
    host.load_state_dict(to_hf(dict(model.state_dict()), old))
    want = logits(model, clips)
    got = host(clips.transpose(1, 2)).logits
    assert (got - want).abs().max() <= 1e-5
    load_checkpoint(fresh, write(tmp_path / "hf.bin", host.state_dict()))
    assert torch.equal(logits(fresh, clips), want)


class Tubelets(nn.Module):
    """timm's place for another embedding, filled with a Conv3d."""

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_: Any) -> None:
        super().__init__()
        self.num_patches = 2 * (img_size // patch_size) ** 2
        kernel = (2, patch_size, patch_size)
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("fused", [True, False])
def test_logits_equal_those_of_timm(
    tmp_path: Path,
    model: VideoViT,
    fresh: VideoViT,
    clips: Tensor,
    to_timm: ToTimm,
    fused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from timm.models.vision_transformer import VisionTransformer

    host = VisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=3,
        num_classes=5,
        class_token=False,
        global_pool="avg",
        fc_norm=True,
        qkv_bias=True,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        embed_layer=Tubelets,
    ).eval()
    host.load_state_dict(to_timm(model))
    for block in host.blocks:
        monkeypatch.setattr(block.attn, "fused_attn", fused)
    assert (logits(host, clips) - logits(model, clips)).abs().max() <= 1e-6
    loaded = load_checkpoint(fresh, write(tmp_path / "timm.pth", host.state_dict()))
    assert loaded.layout == "timm"
    assert loaded.notes == ("pos_embed is the model's fixed table, which is no parameter here",)
    assert torch.equal(logits(fresh, clips), logits(model, clips))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_our_own_files_in_any_precision(
    tmp_path: Path, model: VideoViT, fresh: VideoViT, clips: Tensor, dtype: torch.dtype
) -> None:
    save_weights(model, tmp_path / "w.safetensors", source="a test", dtype=dtype)
    loaded = load_checkpoint(fresh, tmp_path / "w.safetensors")
    assert loaded.layout == "tokred"
    assert loaded.metadata["source"] == "a test"
    assert fresh.head.weight.dtype == torch.float32
    word = str(dtype).removeprefix("torch.")
    assert loaded.notes == (() if dtype == torch.float32 else (f"stored as {word}, loaded as float32",))
    rounded = {name: tensor.to(dtype).float() for name, tensor in model.state_dict().items()}
    model.load_state_dict(rounded)
    assert torch.equal(logits(fresh, clips), logits(model, clips))


def test_a_damaged_file_of_ours_is_noticed(tmp_path: Path, model: VideoViT) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(model, path, source="a test")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="do not have the sha256 that its header names"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["videomae_e2e_sincos", "videomae_e2e_learnpos_gamma_firsttoken"])
def test_golden_weights_load_and_reproduce_their_logits(tmp_path: Path, shared: Path, name: str) -> None:
    from safetensors import safe_open

    path = shared / "golden" / "backbones" / f"{name}.safetensors"
    tensors = load_file(str(path))
    with safe_open(str(path), "pt") as stream:
        config = json.loads(stream.metadata()["config"])
    model = VideoViT(
        img_size=config["img_size"],
        frames=config["all_frames"],
        dim=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        num_classes=config["num_classes"],
        init_values=config.get("init_values", 0.0),
        positions="learned" if config.get("use_learnable_pos_emb") else "flat",
        mean_pooling=config.get("use_mean_pooling", True),
    ).eval()
    weights = {key.removeprefix("w."): tensor for key, tensor in tensors.items() if key.startswith("w.")}
    loaded = load_checkpoint(model, write(tmp_path / "w.pth", {"module": weights}))
    assert (loaded.layout, loaded.notes) == ("videomae", ())
    assert (logits(model, tensors["x"]) - tensors["logits"]).abs().max() <= 1e-5


# What does not fit


def test_every_wrong_key_is_named_at_once_and_the_model_is_unchanged(tmp_path: Path, model: VideoViT) -> None:
    state = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    del state["blocks.0.norm1.weight"], state["blocks.1.attn.v_bias"]
    state |= {"extra.weight": torch.zeros(1), "fc_norm.bias": torch.zeros(3)}
    before = weights_digest(model)
    with pytest.raises(CheckpointError, match="original VideoMAE checkpoint does not fit the model") as caught:
        load_checkpoint(model, write(tmp_path / "w.pth", state))
    error = caught.value
    assert error.missing == ("blocks.0.norm1.weight", "blocks.1.attn.v_bias")
    assert error.unexpected == ("extra.weight",)
    assert error.misshaped == ("fc_norm.bias",)
    for name in (*error.missing, *error.unexpected, "fc_norm.bias (file (3,), model (24,))"):
        assert name in str(error)
    assert str(error).startswith(str(tmp_path / "w.pth"))
    assert weights_digest(model) == before


def test_wrong_keys_of_a_hugging_face_file_are_named_too(tmp_path: Path, model: VideoViT, to_hf: ToHF) -> None:
    tensors = to_hf(dict(model.state_dict()), False)
    del tensors["videomae.encoder.layer.0.attention.attention.key.weight"]
    with pytest.raises(CheckpointError, match=re.escape("blocks.0.attn.qkv.weight")) as caught:
        load_checkpoint(model, write(tmp_path / "w.bin", tensors))
    assert len(caught.value.unexpected) == 2


def test_an_unknown_layout_names_the_file(tmp_path: Path, model: VideoViT) -> None:
    path = write(tmp_path / "resnet.pth", {"conv1.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="no known layout") as caught:
        load_checkpoint(model, path)
    assert str(caught.value).startswith(f"{path}: ")


def test_layer_scale_without_a_place_for_it_is_explained(tmp_path: Path, make_model: MakeModel) -> None:
    state = make_model(init_values=0.1).state_dict()
    with pytest.raises(CheckpointError, match=r"gamma_1.*build the model with init_values > 0"):
        load_checkpoint(make_model(), write(tmp_path / "w.pth", state))


def test_whole_numbers_are_no_weights(tmp_path: Path, model: VideoViT) -> None:
    state = {**model.state_dict(), "head.bias": torch.zeros(5, dtype=torch.int8)}
    with pytest.raises(CheckpointError, match="holds float32 and int8: only floating types are loaded"):
        load_checkpoint(model, write(tmp_path / "w.pth", state))


def test_a_model_without_memory_is_refused(tmp_path: Path, model: VideoViT) -> None:
    path = write(tmp_path / "w.pth", model.state_dict())
    with pytest.raises(CheckpointError, match="meta device"):
        load_checkpoint(model.to("meta"), path)


# Heads


def test_another_number_of_classes_is_refused_unless_a_new_head_is_asked_for(
    tmp_path: Path, make_model: MakeModel
) -> None:
    path = write(tmp_path / "w.pth", make_model(num_classes=7).state_dict())
    model = make_model(seed=3)
    head = model.head.weight.detach().clone()
    with pytest.raises(CheckpointError, match="7 classes there, 5 in the model: num_classes=N asks for a new head"):
        load_checkpoint(model, path)
    loaded = load_checkpoint(model, path, new_head=True)
    assert loaded.notes == ("head of 7 classes dropped, new head of 5 classes not trained",)
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.fc_norm.weight, make_model(num_classes=7).fc_norm.weight)


def test_a_head_that_fits_is_kept_when_a_new_one_was_allowed(tmp_path: Path, model: VideoViT, fresh: VideoViT) -> None:
    loaded = load_checkpoint(fresh, write(tmp_path / "w.pth", model.state_dict()), new_head=True)
    assert loaded.notes == ()
    assert torch.equal(fresh.head.weight, model.head.weight)


def pretraining(model: VideoViT) -> dict[str, Tensor]:
    state = {f"encoder.{n}": t for n, t in model.state_dict().items() if not n.startswith(("head", "fc_norm"))}
    norm = {"encoder.norm.weight": torch.ones(24), "encoder.norm.bias": torch.zeros(24)}
    return {**state, **norm, "decoder.head.weight": torch.zeros(1), "mask_token": torch.zeros(1)}


def test_pre_training_files_need_a_new_head(tmp_path: Path, model: VideoViT, fresh: VideoViT) -> None:
    path = write(tmp_path / "pre.pth", {"model": pretraining(model)})
    with pytest.raises(CheckpointError, match="a pre-training file has no head: num_classes=N asks for a") as caught:
        load_checkpoint(fresh, path)
    assert caught.value.missing == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    assert caught.value.unexpected == ()
    loaded = load_checkpoint(fresh, path, new_head=True)
    assert loaded.layout == "videomae-pretraining"
    assert loaded.notes == (
        "parts of pre-training, ignored: decoder, mask_token",
        "not in the file, not trained: fc_norm.weight, fc_norm.bias, head.weight, head.bias",
    )
    assert torch.equal(fresh.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)


def test_a_fine_tuned_file_without_its_head_says_so(tmp_path: Path, model: VideoViT) -> None:
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head")}
    with pytest.raises(CheckpointError, match=r"2 missing: head\.weight, head\.bias; the file has no head"):
        load_checkpoint(model, write(tmp_path / "w.pth", state))


# Positions


def test_learned_positions_do_not_vanish_in_a_model_with_a_fixed_table(tmp_path: Path, make_model: MakeModel) -> None:
    path = write(tmp_path / "w.pth", make_model(positions="learned").state_dict())
    with pytest.raises(CheckpointError, match=r'1 unexpected: pos_embed; .*positions="learned"'):
        load_checkpoint(make_model(), path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("patches", [32, 72])
def test_a_stored_fixed_table_is_recognised(
    tmp_path: Path, make_model: MakeModel, patches: int, dtype: torch.dtype
) -> None:
    model = make_model()
    state = {**model.state_dict(), "pos_embed": sincos_flat(patches, 24).to(dtype)}
    loaded = load_checkpoint(model, write(tmp_path / "w.pth", state))
    assert "pos_embed is the model's fixed table, which is no parameter here" in loaded.notes


def test_the_flat_table_is_not_taken_for_the_grid_table(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model(positions="grid")
    for patches in (32, 72):
        path = write(tmp_path / "w.pth", {**model.state_dict(), "pos_embed": sincos_flat(patches, 24)})
        with pytest.raises(CheckpointError, match="is not the model's fixed table"):
            load_checkpoint(model, path)


def test_learned_positions_of_another_map_are_resampled_per_tubelet(tmp_path: Path, make_model: MakeModel) -> None:
    small = make_model(positions="learned", img_size=24)
    model = make_model(seed=4, positions="learned")
    loaded = load_checkpoint(model, write(tmp_path / "w.pth", small.state_dict()))
    assert loaded.notes == ("pos_embed resampled bicubically per tubelet from 2x3x3 to 2x4x4",)
    assert torch.equal(model.pos_embed, resample(small.pos_embed, Grid(2, 3, 3), Grid(2, 4, 4)))
    one = small.pos_embed.detach().reshape(2, 3, 3, 24)[1].permute(2, 0, 1)[None]
    want = nn.functional.interpolate(one, size=(4, 4), mode="bicubic", align_corners=False)
    assert torch.allclose(model.pos_embed.reshape(2, 4, 4, 24)[1].permute(2, 0, 1), want[0], atol=1e-6)


def test_positions_of_no_square_map_are_refused(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model(positions="learned")
    path = write(tmp_path / "w.pth", {**model.state_dict(), "pos_embed": torch.zeros(1, 20, 24)})
    with pytest.raises(CheckpointError, match=r"of 20 patches is no square grid of 2 tubelets"):
        load_checkpoint(model, path)


def test_positions_of_another_width_are_wrongly_shaped(tmp_path: Path, make_model: MakeModel) -> None:
    model = make_model(positions="learned")
    path = write(tmp_path / "w.pth", {**model.state_dict(), "pos_embed": torch.zeros(1, 32, 12)})
    with pytest.raises(CheckpointError, match="1 of another shape: pos_embed"):
        load_checkpoint(model, path)
