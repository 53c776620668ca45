from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tokred.backbones.positions import resample, sincos_flat
from tokred.backbones.videomae import DropPath, TubeletEmbed, VideoViT
from tokred.tokens import Grid

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "frames": 4, "dim": 24, "depth": 3, "num_heads": 3}


@pytest.fixture
def clips() -> Tensor:
    return torch.randn(2, 3, 4, 32, 32)


def tiny(**changes: Any) -> VideoViT:
    return VideoViT(**{**TINY, "num_classes": 5, **changes}).eval()


@pytest.mark.parametrize("name", ["videomae_e2e_sincos", "videomae_e2e_learnpos_gamma_firsttoken"])
def test_every_stage_equals_the_original(shared: Path, name: str) -> None:
    path = shared / "golden" / "backbones" / f"{name}.safetensors"
    golden = load_file(str(path))
    with safe_open(str(path), "pt") as stream:
        config = json.loads(stream.metadata()["config"])
    model = VideoViT(
        img_size=config["img_size"],
        patch_size=config["patch_size"],
        tubelet_size=config["tubelet_size"],
        frames=config["all_frames"],
        dim=config["embed_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_ratio=config["mlp_ratio"],
        num_classes=config["num_classes"],
        qkv_bias=config["qkv_bias"],
        init_values=config.get("init_values", 0.0),
        positions="learned" if config.get("use_learnable_pos_emb") else "flat",
        mean_pooling=config.get("use_mean_pooling", True),
    ).eval()
    model.load_state_dict({k.removeprefix("w."): v for k, v in golden.items() if k.startswith("w.")})
    with torch.no_grad():
        x = model.embed(golden["x"])
        assert torch.allclose(x, golden["embed"], atol=1e-5)
        branch = model.blocks[0].attention_branch(model.blocks[0].attn(model.blocks[0].norm1(x)))
        if "gamma_1" not in dict(model.blocks[0].named_parameters()):
            assert torch.allclose(branch, golden["block.0.attn_out"], atol=1e-5)
        for i, block in enumerate(model.blocks):
            x = block(x)
            assert torch.allclose(x, golden[f"block.{i}"], atol=1e-5)
        assert torch.allclose(model.forward_features(golden["x"]), golden["features"], atol=1e-5)
        assert torch.allclose(model(golden["x"]), golden["logits"], atol=1e-5)


def test_the_embedding_is_the_convolution_that_its_weights_belong_to(clips: Tensor) -> None:
    embed = TubeletEmbed(8, 2, 3, 24)
    want = embed.proj(clips).flatten(2).transpose(1, 2)
    assert torch.allclose(embed(clips), want, atol=1e-5)


def test_the_key_bias_is_zero() -> None:
    attn = tiny().blocks[0].attn
    nn.init.ones_(attn.q_bias)
    nn.init.ones_(attn.v_bias)
    q, k, v = attn.heads(torch.zeros(1, 2, 24))
    assert (q.min(), k.abs().max(), v.min()) == (1, 0, 1)


def test_attention_is_softmax_of_the_scaled_products() -> None:
    attn = tiny().blocks[0].attn
    x = torch.randn(2, 7, 24)
    q, k, v = attn.heads(x)
    dense = ((q @ k.transpose(-2, -1)) * (24 / 3) ** -0.5).softmax(-1) @ v
    assert torch.allclose(attn(x), attn.proj(dense.transpose(1, 2).flatten(2)), atol=1e-6)


def test_fixed_positions_are_no_part_of_the_state_and_learned_ones_are() -> None:
    assert "pos_embed" not in tiny().state_dict()
    assert "pos_embed" not in tiny(positions="grid").state_dict()
    assert tiny(positions="learned").state_dict()["pos_embed"].shape == (1, 32, 24)
    assert torch.equal(tiny().pos_embed, sincos_flat(32, 24))


def test_another_input_size_gets_resampled_positions(clips: Tensor) -> None:
    model = tiny()
    x = model.embed(clips[..., :16, :24])
    table = resample(model.pos_embed, Grid(2, 4, 4), Grid(2, 2, 3))
    assert torch.allclose(x, model.patch_embed(clips[..., :16, :24]) + table)


def test_mean_pooling_and_the_first_token(clips: Tensor) -> None:
    x = torch.randn(2, 9, 24)
    mean = tiny()
    assert torch.equal(mean.pool(x), mean.fc_norm(x.mean(1)))
    first = tiny(mean_pooling=False)
    assert torch.equal(first.pool(x), first.norm(x)[:, 0])
    assert first.fc_norm is None


def test_norms_have_the_original_epsilon() -> None:
    norms = [m for m in tiny(mean_pooling=False).modules() if isinstance(m, nn.LayerNorm)]
    norms += [m for m in tiny().modules() if isinstance(m, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6}


def test_without_classes_the_features_come_out(clips: Tensor) -> None:
    model = tiny(num_classes=0)
    assert torch.equal(model(clips), model.forward_features(clips))
    assert model(clips).shape == (2, 24)


def test_checkpointing_changes_no_gradient(clips: Tensor) -> None:
    plain = tiny().train()
    saving = copy.deepcopy(plain)
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        model(clips).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is not None, name
        assert torch.equal(a.grad, b.grad), name


def test_drop_path_keeps_the_expectation_and_is_off_in_eval() -> None:
    drop = DropPath(0.25)
    x = torch.ones(4000, 2, 3)
    y = drop(x)
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y, y[:, :1, :1].expand_as(y)), "whole samples are dropped"
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)
    assert drop.eval()(x) is x


def test_drop_path_rises_over_the_depth() -> None:
    assert [block.drop_path.rate for block in tiny(drop_path=0.4).blocks] == pytest.approx([0.0, 0.2, 0.4])


@pytest.mark.parametrize(
    ("size", "dim", "depth", "heads", "millions"),
    [("s", 384, 12, 6, 22.03), ("b", 768, 12, 12, 86.53), ("l", 1024, 24, 16, 304.27), ("h", 1280, 32, 16, 632.12)],
)
def test_published_sizes_have_the_published_number_of_parameters(
    size: str, dim: int, depth: int, heads: int, millions: float
) -> None:
    with torch.device("meta"):
        model = VideoViT(dim=dim, depth=depth, num_heads=heads, num_classes=400)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"img_size": 30}, r"patch 8 must divide 30x30 pixels"),
        ({"frames": 5}, r"tubelet 2 must divide 5 frames"),
        ({"num_heads": 5}, r"num_heads = 5 does not divide dim = 24"),
        ({"positions": "rope"}, r"positions = 'rope' is not one of flat, grid, learned"),
    ],
)
def test_impossible_sizes_are_refused_with_their_numbers(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**changes)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 5, 32, 32), "frames = 5 is not a positive multiple of the tubelet's 2"),
        ((2, 3, 4, 30, 32), "height = 30 is not a positive multiple of the tubelet's 8"),
        ((2, 3, 4, 32, 4), "width = 4 is not a positive multiple of the tubelet's 8"),
        ((2, 3, 0, 32, 32), "frames = 0 is not a positive multiple"),
        ((2, 4, 3, 32, 32), r"clips must be \(B, 3, T, H, W\), got \(2, 4, 3, 32, 32\)"),
        ((3, 4, 32, 32), r"clips must be \(B, 3, T, H, W\), got \(3, 4, 32, 32\)"),
    ],
)
def test_clips_that_do_not_fit_are_refused_with_their_numbers(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny()(torch.zeros(shape))


def test_samples_do_not_influence_each_other(clips: Tensor) -> None:
    model = tiny()
    assert torch.allclose(model(clips)[1:], model(clips[1:]), atol=1e-6)


def test_gelu_is_the_exact_one() -> None:
    mlp = tiny().blocks[0].mlp
    x = torch.randn(3, 24)
    assert torch.equal(mlp(x), mlp.fc2(F.gelu(mlp.fc1(x), approximate="none")))
