from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from timm_models import BUILT, NAMED, SIZE, build, set_fused
from torch import Tensor, nn

from tokred import Attached, Grid, Probe, Reduction, Schedule, Site, TokenReducer, Tokens, attach, detach
from tokred.backbones import adapter_for
from tokred.backbones.timm_vit import TimmViTAdapter
from tokred.measure.flops import count, unreduced_plan
from tokred.reducer import SmallerInput

timm = pytest.importorskip("timm")
from timm.models import vision_transformer as timm_vit  # noqa: E402 (only where timm is)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def plain() -> nn.Module:
    return build("vit_base_patch16_224")


# Strength zero


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("label", [*NAMED, *BUILT])
def test_strength_zero_is_the_host_bit_for_bit(label: str, images: Tensor, watch: TokenReducer, fused: bool) -> None:
    host: Any = build(label)
    set_fused(host, fused)
    want, want_features = host(images), host.forward_features(images)
    taken_apart = attach(host, watch)
    assert torch.equal(taken_apart(images), want)
    assert torch.equal(taken_apart.forward_features(images), want_features)
    assert torch.equal(detach(taken_apart)(images), want)


class Nothing(TokenReducer):
    """Leaves every token, without looking into any block: the host's own block path."""

    def __init__(self) -> None:
        super().__init__(Schedule(at="all", keep=0.9))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None


@pytest.mark.parametrize("label", [*NAMED, *BUILT])
def test_the_hosts_own_blocks_give_the_hosts_logits(label: str, images: Tensor) -> None:
    host: Any = build(label)
    assert torch.equal(attach(host, Nothing())(images), host(images))


@pytest.mark.parametrize("label", ["qk-norm, layer scale, registers", "test_vit3"])
def test_strength_zero_in_training_is_the_host(label: str, images: Tensor, watch: TokenReducer) -> None:
    host: Any = build(label).train()
    for block in host.blocks:
        block.attn.attn_drop.p, block.attn.proj_drop.p = 0.2, 0.1
        block.drop_path1 = timm.layers.DropPath(0.3)
    torch.manual_seed(3)
    want = host(images)
    torch.manual_seed(3)
    assert torch.equal(attach(host, watch)(images), want)


def test_distilled_training_gives_both_logits(images: Tensor, watch: TokenReducer) -> None:
    host: Any = build("deit_base_distilled_patch16_224").train()
    host.set_distilled_training(True)
    for got, want in zip(attach(host, watch)(images), host(images), strict=True):
        assert torch.equal(got, want)


@pytest.mark.skipif(
    "gated" not in timm_vit.Attention.__init__.__code__.co_varnames, reason="this timm has no gated attention"
)
def test_gated_attention(images: Tensor, watch: TokenReducer, plain: Any) -> None:
    before = plain(images)
    for block in plain.blocks:
        block.attn.gate = nn.Linear(24, 24)
    want = plain(images)
    assert not torch.allclose(want, before)
    assert torch.equal(attach(plain, watch)(images), want)


def test_heads_of_another_width(images: Tensor, watch: TokenReducer, plain: Any) -> None:
    if "attn_head_dim" not in timm_vit.Attention.__init__.__code__.co_varnames:
        pytest.skip("this timm has heads of dim / heads only")
    for block in plain.blocks:
        block.attn = timm_vit.Attention(24, num_heads=3, attn_head_dim=10)
    assert torch.equal(attach(plain, watch)(images), plain(images))
    assert TimmViTAdapter().geometry(plain).head_dim == 10


@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_images_of_another_size(size: tuple[int, int], watch: TokenReducer) -> None:
    host = build("dynamic size")
    images = torch.randn(1, 3, *size)
    assert torch.equal(attach(host, watch)(images), host(images))
    tokens = TimmViTAdapter().embed(host, images, None)
    assert tokens.grid == Grid(1, size[0] // 8, size[1] // 8)


# Masses


def pairs_of_equal_patches(model: Any) -> Tensor:
    """An image whose patches come in equal neighbouring pairs; the model's positions are made equal too."""
    nn.init.zeros_(model.pos_embed)
    tile = torch.randn(2, 3, 4, 8, 2, 8).repeat_interleave(2, dim=4)
    return tile.reshape(2, 3, 32, 32)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize(
    "label",
    [
        "vit_base_patch16_224",
        "deit_base_distilled_patch16_224",
        "qk-norm, layer scale, registers",
        "average pool, no class token",
        "average pool, fc_norm off",
        "registers, no class token",
        "average and maximum",
        "maximum",
        "pool with prefix",
        "vit_little_patch16_reg4_gap_256",
    ],
)
def test_merged_equal_tokens_give_the_unreduced_logits(label: str, merge_pairs: TokenReducer, fused: bool) -> None:
    host: Any = build(label)
    set_fused(host, fused)
    images = pairs_of_equal_patches(host)
    fast = attach(host, merge_pairs)
    run = fast.run(images)
    assert run.tokens.patch_count == 12
    assert torch.allclose(run.logits, host(images), atol=1e-5)
    assert torch.allclose(fast(images), host(images), atol=1e-5)
    full = attach(host, Nothing()).run(images)
    assert torch.allclose(run.pooled, full.pooled, atol=1e-5)


@pytest.mark.parametrize("label", ["vit_base_patch16_224", "average pool, no class token"])
@pytest.mark.parametrize("part", ["proportional", "pool"])
def test_without_masses_the_logits_differ(merge_pairs: TokenReducer, label: str, part: str) -> None:
    host: Any = build(label)
    images = pairs_of_equal_patches(host)
    setattr(merge_pairs, part, {"proportional": False, "pool": "mean"}[part])
    same = torch.allclose(attach(host, merge_pairs)(images), host(images), atol=1e-4)
    assert same is (part == "pool" and label == "vit_base_patch16_224"), "a class token needs no weighted mean"


# Inside


def test_queries_and_keys_are_those_of_the_attention(images: Tensor) -> None:
    host: Any = build("qk-norm")
    adapter = TimmViTAdapter()
    x = adapter.embed(host, images, None).x
    attended = adapter.attend(host.blocks[0], Tokens(x, Grid(1, 1, x.shape[1])), None)
    dense = ((attended.q @ attended.k.transpose(-2, -1)) * attended.scale).softmax(-1) @ attended.v
    attn = host.blocks[0].attn
    want = attn(host.blocks[0].norm1(x))
    assert torch.allclose(attn.proj(dense.transpose(1, 2).flatten(2)), want, atol=1e-5)
    assert attended.q.shape == (2, 3, 17, 8)


def test_the_branch_of_the_mlp_is_handed_over_before_layer_scale(images: Tensor) -> None:
    host: Any = build("qk-norm, layer scale, registers")
    block = host.blocks[0]
    x = torch.randn(2, 6, 24)
    fed = TimmViTAdapter().feed(block, x)
    assert torch.equal(fed.branch, block.mlp(block.norm2(x)))
    assert torch.equal(fed.x, x + block.ls2(fed.branch))


def test_prefix_tokens_stand_in_front(images: Tensor) -> None:
    for label, prefix in (
        ("deit_base_distilled_patch16_224", 2),
        ("positions without class", 2),
        ("registers, no class token", 3),
        ("average pool, no class token", 0),
    ):
        host: Any = build(label)
        tokens = TimmViTAdapter().embed(host, images, None)
        assert (tokens.prefix, tokens.count, tokens.grid, tokens.groups) == (prefix, prefix + 16, Grid(1, 4, 4), 1)


def test_the_geometry_counts_what_the_model_has(plain: Any) -> None:
    geometry = TimmViTAdapter().geometry(plain)
    assert (geometry.depth, geometry.dim, geometry.heads, geometry.head_dim, geometry.mlp_hidden) == (3, 24, 3, 8, 96)
    assert (geometry.grid, geometry.prefix, geometry.classes, geometry.kernel) == (Grid(1, 4, 4), 1, 5, (1, 8, 8))
    assert (geometry.video, geometry.input_shape(2)) == (False, (2, 3, 32, 32))
    assert (geometry.qk_norm, geometry.inner_norms, geometry.heads_out, geometry.final_norm_tokens) == (
        False,
        0,
        1,
        True,
    )
    assert TimmViTAdapter().geometry(build("deit_base_distilled_patch16_224")).heads_out == 2
    assert TimmViTAdapter().geometry(build("average pool")).final_norm_tokens is False


@pytest.mark.parametrize(
    "label", ["vit_base_patch16_224", "vit_giant_patch14_dinov2", "deit_base_distilled_patch16_224"]
)
def test_the_closed_form_counts_what_torch_counts(label: str, images: Tensor) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    host: Any = build(label)
    set_fused(host, False)
    with FlopCounterMode(display=False) as counter:
        host(images[:1])
    geometry = TimmViTAdapter().geometry(host)
    report = count(geometry, unreduced_plan(geometry))
    assert report.macs - report.norm == counter.get_total_flops() // 2


# Smaller input


@pytest.mark.parametrize(
    "label",
    [
        "vit_base_patch16_224",
        "deit_base_distilled_patch16_224",
        "positions without class",
        "registers, no class token",
        "pre-norm",
        "no positions",
    ],
)
def test_a_smaller_image_is_what_the_host_does_at_that_size(label: str, images: Tensor) -> None:
    host: Any = build(label)
    small = TimmViTAdapter().embed(host, images, SmallerInput(Grid(1, 3, 2)))
    resized = nn.functional.interpolate(images, size=(24, 16), mode="bilinear", antialias=True, align_corners=False)
    kind = type(host)
    other = kind(**{**SIZE, **BUILT.get(label, {}), "img_size": (24, 16)}).eval()
    if host.pos_embed is not None:
        host.set_input_size(img_size=(24, 16)) if hasattr(host, "set_input_size") else pytest.skip(
            "this timm cannot change the input size"
        )
    other.load_state_dict(host.state_dict())
    want = TimmViTAdapter().embed(other, resized, None)
    assert small.grid == want.grid == Grid(1, 3, 2)
    assert torch.allclose(small.x, want.x, atol=1e-6)


def test_an_image_has_no_frames_to_leave_out(images: Tensor, plain: nn.Module) -> None:
    assert TimmViTAdapter().embed(plain, images, SmallerInput(Grid(1, 4, 4), (0,))).count == 17
    for smaller in (SmallerInput(Grid(2, 4, 4)), SmallerInput(Grid(1, 4, 4), (0, 1))):
        with pytest.raises(ValueError, match="an image has one frame; asked for grid"):
            TimmViTAdapter().embed(plain, images, smaller)


# Use


def test_masks_are_not_taken(plain: nn.Module, watch: TokenReducer, images: Tensor) -> None:
    fast = attach(plain, watch)
    assert torch.equal(fast(x=images), plain(images))
    for masked in ({"attn_mask": torch.zeros(17, 17)}, {"is_causal": True}):
        with pytest.raises(TypeError, match="attn_mask and is_causal are not possible with a reducer"):
            fast(images, **masked)


def test_an_attached_model_can_be_copied_pickled_and_trained(
    plain: nn.Module, watch: TokenReducer, images: Tensor
) -> None:
    fast = attach(plain, watch)
    assert torch.equal(copy.deepcopy(fast)(images), fast(images))
    with torch.enable_grad():
        fast(images).square().sum().backward()
        mine = {name: p.grad.clone() for name, p in plain.named_parameters()}
        plain.zero_grad()
        plain(images).square().sum().backward()
    assert all(torch.equal(mine[name], p.grad) for name, p in plain.named_parameters())
    assert isinstance(pickle.loads(pickle.dumps(TimmViTAdapter())), TimmViTAdapter)


def test_gradient_checkpointing_gives_the_same_gradients(plain: Any, watch: TokenReducer, images: Tensor) -> None:
    grads = []
    for on in (False, True):
        plain.set_grad_checkpointing(on)
        assert TimmViTAdapter().checkpoints(plain) is on
        plain.zero_grad()
        with torch.enable_grad():
            attach(plain, watch)(images).sum().backward()
        grads.append({name: p.grad.clone() for name, p in plain.named_parameters()})
    assert all(torch.equal(grads[0][name], grads[1][name]) for name in grads[0])


def test_it_compiles_to_one_graph(merge_pairs: TokenReducer, images: Tensor) -> None:
    fast = attach(build("qk-norm, layer scale, registers"), merge_pairs)
    assert torch.equal(torch.compile(fast, backend="eager", fullgraph=True)(images), fast(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_runs_and_stays(merge_pairs: TokenReducer, images: Tensor, dtype: torch.dtype) -> None:
    host = build("average pool, no class token").to(dtype)
    assert attach(host, merge_pairs)(images.to(dtype)).dtype == dtype


def test_nothing_is_written_on_the_host(plain: nn.Module, watch: TokenReducer, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    attributes = {name: set(vars(module)) for name, module in plain.named_modules()}
    fast = attach(plain, watch)
    fast(images)
    assert isinstance(fast, Attached)
    assert all(torch.equal(before[name], tensor) for name, tensor in plain.state_dict().items())
    assert {name: set(vars(module)) for name, module in plain.named_modules()} == attributes


def test_the_adapter_is_found_for_timm_models_alone(plain: nn.Module) -> None:
    assert isinstance(adapter_for(plain), TimmViTAdapter)
    assert not TimmViTAdapter().accepts(nn.Linear(1, 1))
