from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokred import TokenReducer, attach
from tokred.backbones.adapter import Unsupported
from tokred.backbones.timm_checks import check_timm_vit

timm = pytest.importorskip("timm")
from timm.models import vision_transformer as timm_vit  # noqa: E402 (only where timm is)

SIZE: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}


def vit(**changes: Any) -> Any:
    return timm_vit.VisionTransformer(**{**SIZE, **changes}).eval()


def refused(model: nn.Module, pattern: str) -> None:
    with pytest.raises(Unsupported, match=pattern) as caught:
        check_timm_vit(model)
    assert "\n" not in str(caught.value)


def test_a_plain_model_passes() -> None:
    check_timm_vit(vit())


# Other families, by name

SMALL = {"embed_dim": 24, "depth": 1, "num_heads": 3}
WINDOWED = {"embed_dim": 12, "depths": (1,), "num_heads": (3,)}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "eva02_tiny_patch14_224": ({"img_size": 28}, r"timm's Eva is not read: .*RoPE"),
    "beit_base_patch16_224": ({"img_size": 32, **SMALL}, r"timm's Beit is not read: .*relative position"),
    "vit_relpos_small_patch16_224": ({"img_size": 32, **SMALL}, r"RelPos is not read: .*relative position"),
    "swin_tiny_patch4_window7_224": (WINDOWED, r"SwinTransformer is not read: .*windows"),
    "swinv2_tiny_window8_256": (WINDOWED, r"SwinTransformerV2 is not read: .*windows"),
    "cait_xxs24_224": (SMALL, r"Cait is not read: .*class attention"),
    "naflexvit_base_patch16_gap": (SMALL, r"NaFlexVit is not read: .*attention masks"),
    "resnet10t": ({}, r"timm's ResNet is not read: its blocks are not those of timm's VisionTransformer"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_refused_with_the_reason(name: str, watch: TokenReducer) -> None:
    arguments, pattern = OTHERS[name]
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    model = timm.create_model(name, **arguments)
    refused(model, pattern)
    with pytest.raises(Unsupported, match=pattern):
        attach(model, watch)


# Blocks and attention of another kind inside a VisionTransformer


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ("ResPostBlock", "ResPostBlock"),
        ("ParallelScalingBlock", "ParallelScalingBlock"),
        ("ParallelThingsBlock", "Things"),
    ],
)
def test_other_blocks_are_refused(block: str, name: str) -> None:
    refused(vit(block_fn=getattr(timm_vit, block)), rf"block 0 is a .*{name}.*; understood: Block")


def test_one_other_block_among_plain_ones_is_found() -> None:
    model = vit()
    model.blocks[1] = timm_vit.ResPostBlock(24, 3)
    refused(model, "block 1 is a .*ResPostBlock")


@pytest.mark.skipif(not hasattr(timm_vit, "DiffAttention"), reason="this timm has no differential attention")
def test_differential_attention_is_refused() -> None:
    refused(vit(attn_layer="diff", num_heads=2), r"block 0\.attn is a .*DiffAttention; understood: Attention")


def test_attention_that_turns_by_position_is_refused() -> None:
    rope = getattr(timm.layers, "AttentionRope", None)
    if rope is None:
        pytest.skip("this timm has no AttentionRope")
    model = vit()
    model.blocks[0].attn = rope(24, num_heads=3)
    refused(model, r"block 0\.attn is a .*AttentionRope")


class OwnBlock(timm_vit.Block):  # type: ignore[misc]
    def forward(self, x: Tensor) -> Tensor:
        return x


class OwnAttention(timm_vit.Attention):  # type: ignore[misc]
    pass


class OwnModel(timm_vit.VisionTransformer):  # type: ignore[misc]
    def forward_features(self, x: Tensor, **_: Any) -> Tensor:
        return super().forward_features(x) * 2


class OwnPool(timm_vit.VisionTransformer):  # type: ignore[misc]
    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return self.head(x.amax(1))


class OwnPositions(timm_vit.VisionTransformer):  # type: ignore[misc]
    def _pos_embed(self, x: Tensor) -> Tensor:
        return super()._pos_embed(x).flip(1)


class OwnName(timm_vit.VisionTransformer):  # type: ignore[misc]
    """Changes nothing that a forward runs."""

    def describe(self) -> str:
        return "mine"


def test_subclasses_of_blocks_and_attention_are_refused() -> None:
    refused(vit(block_fn=OwnBlock), r"block 0 is a .*OwnBlock; understood: Block")
    model = vit()
    model.blocks[1].attn = OwnAttention(24, num_heads=3)
    refused(model, r"block 1\.attn is a .*OwnAttention; understood: Attention")


@pytest.mark.parametrize(
    ("cls", "method"), [(OwnModel, "forward_features"), (OwnPool, "forward_head"), (OwnPositions, "_pos_embed")]
)
def test_subclasses_that_change_the_forward_are_refused(cls: type, method: str) -> None:
    refused(cls(**SIZE), rf"{cls.__name__}.* overrides VisionTransformer\.{method}; attach would not run it")


def test_subclasses_that_change_nothing_are_read(watch: TokenReducer) -> None:
    model = OwnName(**SIZE).eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(attach(model, watch)(images), model(images))


@pytest.mark.parametrize("method", ["forward", "forward_features", "forward_head", "_pos_embed"])
def test_methods_set_on_the_instance_are_refused(method: str) -> None:
    model = vit()
    setattr(model, method, lambda x: x)
    refused(model, f"VisionTransformer has a {method} of its own, set on the instance")


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (lambda m: m.blocks[1], "block 1"),
        (lambda m: m.blocks[1].attn, r"block 1\.attn"),
        (lambda m: m.patch_embed, r"VisionTransformer\.patch_embed"),
    ],
)
def test_a_forward_set_on_a_part_is_refused(part: Callable[[Any], Any], where: str) -> None:
    model = vit()
    part(model).forward = lambda x: x
    refused(model, rf"{where} has a forward of its own")


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (lambda m: m, "VisionTransformer"),
        (lambda m: m.blocks[0], "block 0"),
        (lambda m: m.blocks[1].attn, r"block 1\.attn"),
    ],
)
def test_hooks_where_they_would_not_run_are_refused(part: Callable[[Any], Any], where: str) -> None:
    model = vit()
    part(model).register_forward_hook(lambda *_: None)
    refused(model, f"{where} has hooks")


def test_hooks_on_parts_that_are_called_still_run(watch: TokenReducer) -> None:
    model = vit()
    seen: list[int] = []
    model.blocks[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    fast = attach(model, watch)
    seen.clear()
    fast(torch.randn(1, 3, 32, 32))
    assert seen == [1]


# Parts that are not known


@pytest.mark.parametrize(
    ("part", "where"),
    [
        (lambda m: m, "VisionTransformer"),
        (lambda m: m.blocks[1], "block 1"),
        (lambda m: m.blocks[1].attn, r"block 1\.attn"),
    ],
)
def test_unknown_children_and_parameters_are_refused(part: Callable[[Any], Any], where: str) -> None:
    model = vit()
    part(model).add_module("rope", nn.Identity())
    refused(model, rf"{where} \(.*\) has parts that are not understood: rope")
    model = vit()
    part(model).register_parameter("relative_position_bias", nn.Parameter(torch.zeros(1)))
    refused(model, rf"{where} \(.*\) has parts that are not understood: relative_position_bias")


class Odd(nn.Identity):
    pass


@pytest.mark.parametrize(
    ("owner", "part"),
    [
        (lambda m: m, "patch_embed"),
        (lambda m: m, "patch_drop"),
        (lambda m: m, "norm_pre"),
        (lambda m: m, "norm"),
        (lambda m: m, "fc_norm"),
        (lambda m: m, "attn_pool"),
        (lambda m: m.blocks[1], "norm1"),
        (lambda m: m.blocks[1], "norm2"),
        (lambda m: m.blocks[1], "ls1"),
        (lambda m: m.blocks[1], "ls2"),
        (lambda m: m.blocks[1], "drop_path1"),
        (lambda m: m.blocks[1], "drop_path2"),
        (lambda m: m.blocks[1], "mlp"),
        (lambda m: m.blocks[1].attn, "q_norm"),
        (lambda m: m.blocks[1].attn, "k_norm"),
    ],
)
def test_parts_of_an_unknown_kind_are_refused(owner: Callable[[Any], Any], part: str) -> None:
    model = vit()
    setattr(owner(model), part, Odd())
    refused(model, rf"{part} is a .*Odd; understood: ")


def test_blocks_in_another_container_are_refused() -> None:
    model = vit()
    model.blocks = nn.ModuleList(model.blocks)
    refused(model, r"VisionTransformer\.blocks is a .*ModuleList")
    model.blocks = nn.Sequential()
    refused(model, "VisionTransformer has no blocks")


def test_blocks_of_different_sizes_are_refused() -> None:
    model = vit()
    model.blocks[1].attn = timm_vit.Attention(24, num_heads=2)
    refused(model, r"blocks differ in \(heads, head width, MLP width\)")
    model = vit()
    model.blocks[1].mlp = timm.layers.Mlp(24, 30)
    refused(model, r"blocks differ in \(heads, head width, MLP width\)")


def test_a_hybrid_stem_is_refused() -> None:
    model = timm.create_model("vit_tiny_r_s16_p8_224", img_size=32, embed_dim=24, depth=1, num_heads=3)
    refused(model, r"patch_embed is a .*HybridEmbed; understood: PatchEmbed")


def test_dropping_patches_in_training_is_refused() -> None:
    refused(vit(patch_drop_rate=0.25), r"patch_drop drops 25% of the patches itself in training")
    model = vit(patch_drop_rate=0.25)
    model.patch_drop.prob = 0.0
    check_timm_vit(model)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_timm_that_forgets_tokens_is_refused(monkeypatch: pytest.MonkeyPatch, dynamic: bool) -> None:
    model = vit(dynamic_img_size=dynamic)
    model.pos_embed = None
    monkeypatch.setattr(timm_vit.VisionTransformer, "_pos_embed", lambda self, x: x.view(1, -1, x.shape[-1]))
    refused(model, "has no positions, and this timm forgets its class and register tokens then")
    model = vit(class_token=False, global_pool="avg", dynamic_img_size=dynamic)
    model.pos_embed = None
    check_timm_vit(model)


def test_models_that_do_not_pool_are_refused() -> None:
    refused(vit(global_pool="", class_token=False), r"has global_pool = ''; understood: token, avg, avgmax, max, map")


def test_attention_pools_with_positions_are_refused() -> None:
    model = vit(global_pool="map")
    check_timm_vit(model)
    model.attn_pool.pos_embed = nn.Parameter(torch.zeros(17, 24))
    refused(model, "attn_pool adds positions to a fixed number of tokens")


@pytest.mark.skipif(not hasattr(timm.layers, "AttentionPoolPrr"), reason="this timm has no such pool")
def test_pools_that_attend_over_all_tokens_again_are_refused() -> None:
    refused(vit(global_pool="prr"), r"attn_pool is a .*AttentionPoolPrr; understood: AttentionPoolLatent")


def test_a_model_without_a_native_size_is_refused() -> None:
    model = vit()
    model.patch_embed.grid_size = None
    refused(model, "has no image size of its own: give img_size")


def test_an_attention_without_the_known_parts_is_refused() -> None:
    model = vit()
    del model.blocks[0].attn.scale
    refused(model, r"block 0\.attn \(.*Attention\) has no scale: this timm is not understood")
