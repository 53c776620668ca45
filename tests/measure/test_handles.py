from __future__ import annotations

import copy
import math
import warnings
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.backbones.videomae import VideoViT
from tokred.measure import handles
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.handles import OperatorMacs, attention_count_ratio, fvcore_macs, torch_macs
from tokred.tokens import Grid

SMALL = {"img_size": 32, "frames": 4, "dim": 48, "depth": 3, "num_heads": 4, "num_classes": 7}
GEOMETRY = Geometry(3, 48, 4, 12, 192, Grid(2, 2, 2), 0, 7, (2, 16, 16))


class Attend(nn.Module):
    """One attention, written in three ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.how == "fused":
            return F.scaled_dot_product_attention(q, k, v)
        if self.how == "masked":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=q.new_zeros(1, 1, 1, k.shape[-2]))
        return (q @ k.transpose(-1, -2)).softmax(dim=-1) @ v


class Convolve(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("counter", [fvcore_macs, torch_macs])
def test_fused_attention_counts_what_unfused_attention_counts(counter: Any, device: str) -> None:
    # 2 samples, 3 heads, 5 queries, 9 keys, d_qk = 8, d_v = 8
    q = torch.zeros(2, 3, 5, 8, device=device)
    k = torch.zeros(2, 3, 9, 8, device=device)
    expected = 2 * 3 * 5 * 9 * (8 + 8)
    assert [counter(Attend(how), (q, k, k)).macs for how in ("fused", "masked", "plain")] == [expected] * 3


def test_values_of_another_width_than_the_keys_are_counted() -> None:
    q, v = torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 4, 16)
    assert fvcore_macs(Attend("fused"), (q, q, v)).macs == 2 * 4 * 4 * (8 + 16)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_fvcore_and_the_closed_form_agree_to_the_last_digit(device: str) -> None:
    with torch.device(device):
        model = VideoViT(**SMALL).eval().to(device)  # type: ignore[arg-type]
    clips = torch.zeros(1, 3, 4, 32, 32, device=device)
    closed = count(GEOMETRY, unreduced_plan(GEOMETRY))
    measured = fvcore_macs(model, clips)
    assert measured.macs == closed.macs
    assert measured.norm == closed.norm
    assert measured.unsupported == {}
    assert torch_macs(model, clips).macs == closed.macs - closed.norm


def test_the_count_is_for_the_whole_batch() -> None:
    model = VideoViT(**SMALL).eval()  # type: ignore[arg-type]
    one, three = (fvcore_macs(model, torch.zeros(b, 3, 4, 32, 32)).macs for b in (1, 3))
    assert three == 3 * one


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_published_sizes_on_the_meta_device(size: str) -> None:
    dim, depth, heads, gmac = {"small": (384, 12, 6, 56.950316928), "large": (1024, 24, 16, 597.218)}[size]
    with torch.device("meta"):
        model = VideoViT(dim=dim, depth=depth, num_heads=heads).eval().to("meta")
    clips = torch.zeros(1, 3, 16, 224, 224, device="meta")
    assert fvcore_macs(model, clips).macs / 1e9 == pytest.approx(gmac, abs=6e-4)


@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv3d(3, 8, 2, 2), (2, 3, 4, 6, 6)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 9, 7)),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2, bias=False), (1, 4, 9, 7)),
        (nn.Conv2d(4, 6, (3, 2), padding="valid"), (1, 4, 9, 7)),
        (nn.Conv1d(2, 5, 3, stride=3), (2, 2, 11)),
    ],
)
def test_convolutions_count_the_same_on_the_meta_device(conv: nn.Module, shape: tuple[int, ...]) -> None:
    model = Convolve(conv)
    x = torch.zeros(shape)
    real = fvcore_macs(model, x)
    assert real.macs > 0
    assert real.macs == torch_macs(model, x).macs
    meta = fvcore_macs(copy.deepcopy(model).to("meta"), x.to("meta"))
    assert meta.macs == real.macs
    assert meta.notes == ("1 convolutions on the meta device counted as linear layers",)
    assert real.notes == ()


class CountsTokens(nn.Module):
    """Computes with lengths as a reducer does."""

    def forward(self, x: Tensor) -> Tensor:
        keep = int(Fraction(1, 2) * x.shape[1]) + min(x.size(1), 0) + divmod(x.numel(), x.size()[2])[1]
        first = x[:, : math.gcd(keep, keep)]
        return first @ first.transpose(1, 2)


def test_lengths_are_integers_inside_a_trace() -> None:
    assert fvcore_macs(CountsTokens(), torch.zeros(1, 10, 4)).macs == 5 * 5 * 4


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() + F.gelu(x).sum()


def test_operators_that_nobody_knows_are_listed_apart_from_those_that_count_zero() -> None:
    result = fvcore_macs(Odd(), torch.zeros(1, 4, 3))
    assert dict(result.unsupported) == {"aten::cdist": 1}
    assert result.zero["aten::gelu"] == 1


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("inside the forward")


def test_a_failing_forward_leaves_no_hook_and_its_own_hooks_in_place() -> None:
    model = Fails()
    model.inner.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="inside the forward"):
        fvcore_macs(model, torch.zeros(1, 2))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert len(model.inner._forward_hooks) == 1
    assert not model.inner._forward_pre_hooks


def test_counting_leaves_the_model_as_it_was() -> None:
    model = VideoViT(**SMALL).eval()  # type: ignore[arg-type]
    before = {name: t.clone() for name, t in model.state_dict().items()}
    fvcore_macs(model, torch.zeros(1, 3, 4, 32, 32))
    torch_macs(model, torch.zeros(1, 3, 4, 32, 32))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_counting_warns_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fvcore_macs(nn.Linear(3, 3), torch.zeros(1, 3))
        torch_macs(nn.Linear(3, 3), torch.zeros(1, 3))


def test_both_counters_name_modules_the_same_way() -> None:
    model = VideoViT(**SMALL).eval()  # type: ignore[arg-type]
    clips = torch.zeros(1, 3, 4, 32, 32)
    ours, theirs = fvcore_macs(model, clips), torch_macs(model, clips)
    name = "blocks.1.mlp.fc1"
    assert ours.by_module[name] == theirs.by_module[name] == 8 * 48 * 192
    assert ours.by_module[""] == ours.macs
    assert theirs.by_module[""] == theirs.macs


def test_flops_are_two_per_multiply_add() -> None:
    assert OperatorMacs(21, {}, {}, {}, {}, "x").flops == 42


def _pretend(monkeypatch: pytest.MonkeyPatch, plain: float, repaired: float) -> None:
    def ratio(device: str, dtype: torch.dtype, mapping: dict[Any, Any] | None = None) -> float:
        return plain if mapping is None else repaired

    monkeypatch.setattr(handles, "attention_count_ratio", ratio)
    handles._attention_fix.cache_clear()


@pytest.mark.parametrize(("plain", "repaired", "said"), [(0.0, 1.0, "was supplied"), (0.0, 0.0, "total is wrong")])
def test_a_torch_that_miscounts_attention_is_named(
    monkeypatch: pytest.MonkeyPatch, plain: float, repaired: float, said: str
) -> None:
    _pretend(monkeypatch, plain, repaired)
    try:
        q = torch.zeros(1, 2, 4, 8)
        (note,) = torch_macs(Attend("fused"), (q, q, q)).notes
        assert "counts 0 of a fused attention on cpu" in note
        assert said in note
    finally:
        handles._attention_fix.cache_clear()


def test_the_supplied_attention_formula_is_right() -> None:
    fixed = {getattr(torch.ops.aten, name): handles._attention_flops for name in handles._FUSED_ATTENTION}
    assert attention_count_ratio("cpu", torch.float32, fixed) == 1.0


@pytest.mark.parametrize("settings", [{}, {"qk_norm": True}, {"class_token": False, "global_pool": "avg"}])
def test_timm_models_cost_what_the_closed_form_says(settings: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_base_patch16_224", embed_dim=96, depth=2, num_heads=4, **settings).eval().to("meta")
    block = model.blocks[0]
    pooled = not isinstance(model.fc_norm, nn.Identity)
    geometry = Geometry(
        depth=len(model.blocks),
        dim=model.embed_dim,
        heads=block.attn.num_heads,
        head_dim=block.attn.head_dim,
        mlp_hidden=block.mlp.fc1.out_features,
        grid=Grid(1, 14, 14),
        prefix=model.num_prefix_tokens,
        classes=1000,
        kernel=(1, 16, 16),
        qk_norm=bool(settings.get("qk_norm")),
        final_norm_tokens=not pooled,
        video=False,
    )
    closed = count(geometry, unreduced_plan(geometry))
    images = torch.zeros(1, 3, 224, 224, device="meta")
    assert fvcore_macs(model, images).macs == closed.macs
    assert torch_macs(model, images).macs == closed.macs - closed.norm


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_torchs_counter_counts_norms_as_fvcore_does_when_asked(affine: bool, grad: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, elementwise_affine=affine), nn.Linear(8, 3))
    x = torch.randn(5, 6)
    assert torch_macs(model, x, grad=grad).macs == 5 * 6 * 8 + 5 * 8 * 3
    counted = torch_macs(model, x, norms=True, grad=grad)
    assert counted.norm == 5 * 8 * (5 if affine else 4)
    assert counted.macs == fvcore_macs(model, x).macs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_transformers_model_costs_the_same_fused_and_unfused_on_the_meta_device(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.VideoMAEConfig(
        image_size=32, num_frames=4, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=192,
        num_labels=7, use_mean_pooling=True, attn_implementation=attention,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.VideoMAEForVideoClassification(config).eval()
    # This host builds its position table on the CPU.
    model.videomae.embeddings.position_embeddings = model.videomae.embeddings.position_embeddings.to("meta")
    measured = fvcore_macs(_Logits(model), torch.zeros(1, 4, 3, 32, 32, device="meta"))
    assert measured.macs == count(GEOMETRY, unreduced_plan(GEOMETRY)).macs


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, clips: Tensor) -> Tensor:
        return self.model(clips).logits
