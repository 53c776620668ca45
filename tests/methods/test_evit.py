"""EViT against loops, and its relatives without a class token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.advance import advance
from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.methods import EViT
from tokred.methods.evit import shrinking_rate
from tokred.probe import Probe
from tokred.reducer import Promise, Site
from tokred.schedule import ScheduleError, Step
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, IMAGE, *_ = default_backbones()


def dense(q: Tensor, k: Tensor, scale: float) -> Tensor:
    return (q.double() @ k.double().transpose(-1, -2) * scale).softmax(-1)


def scores(name: str, q: Tensor, k: Tensor, scale: float, prefix: int) -> Tensor:
    """Score of every patch, (n,), of one sample with q, k (H, N, d)."""
    heads, n, _ = q.shape
    rows = dense(q, k, scale)
    if name == "class":
        return torch.stack([rows[:, 0, j].mean() for j in range(prefix, n)])
    if name == "received":
        return torch.stack([rows[:, :, j].sum() / (heads * n) for j in range(prefix, n)])
    mean = q[:, prefix:].double().mean(1)
    row = (mean[:, None] @ k.double().transpose(-1, -2) * scale).softmax(-1)[:, 0]
    return row.mean(0)[prefix:]


@given(
    st.integers(1, 9),
    st.integers(0, 2),
    st.floats(0.05, 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["class", "received", "mean_query"]),
    st.sampled_from(["score", "position"]),
    st.integers(0, 9999),
)
def test_a_step_is_the_official_one_by_loops(
    n: int, prefix: int, keep: float, fuse: bool, normalise: bool, score: str, order: str, seed: int
) -> None:
    prefix = max(prefix, 1) if score == "class" else prefix
    g = torch.Generator().manual_seed(seed)
    total = prefix + n
    x = torch.randn(1, total, 3, generator=g)
    q, k = (2 * torch.randn(1, 2, total, 4, generator=g) for _ in range(2))
    reducer = EViT(keep, at=(0,), fuse=fuse, normalise=normalise, score=score, order=order)
    probe = Probe(x, q, k, k, scale=0.5, prefix=prefix, needs=reducer.capabilities.needs)
    tokens = Tokens(x, Grid(1, 1, n), prefix)
    reduction = reducer.reduce(tokens, probe, Site("after_attention", Step(0, 0, "keep", keep), 6, 1))
    left = math.ceil(keep * n)
    if left == n:
        assert reduction is None
        return
    assert reduction is not None
    after = advance(tokens, reduction)
    a = scores(score, q[0], k[0], 0.5, prefix)
    ranked = sorted(range(n), key=lambda j: -float(a[j]))[:left]
    kept = sorted(ranked) if order == "position" else ranked
    expected = [x[0, i] for i in range(prefix)] + [x[0, prefix + j] for j in kept]
    assert torch.equal(after.x[0, : len(expected)], torch.stack(expected))
    assert after.count == prefix + left + int(fuse)
    if fuse:
        rest = [j for j in range(n) if j not in ranked]
        weight = {j: float(a[j]) / (sum(float(a[i]) for i in rest) if normalise else 1.0) for j in rest}
        fused = sum((weight[j] * x[0, prefix + j] for j in rest), torch.zeros(3))
        torch.testing.assert_close(after.x[0, -1], fused, rtol=1e-4, atol=1e-5)
        assert after.size is not None
        assert float(after.size[0, -1]) == len(rest)


def test_the_best_score_is_chosen_by_what_the_backbone_has() -> None:
    for backbone, says in ((VIDEO, "EViT-style (received attention), rest fused"), (IMAGE, "EViT, rest fused")):
        host, _ = backbone.build()
        assert attach(host, EViT(0.5, at=(1,))).notes == (says,)
    host, _ = IMAGE.build()
    assert attach(host, EViT(0.5, at=(1,), score="mean_query", fuse=False)).notes == (
        "EViT-style (mean_query attention), rest dropped",
    )


def test_gradients_reach_the_class_row_through_the_weights_of_the_fused_token() -> None:
    x = torch.randn(1, 6, 4)
    q, k = torch.randn(1, 2, 6, 4, requires_grad=True), torch.randn(1, 2, 6, 4, requires_grad=True)
    for score, flows in (("class", True), ("mean_query", True), ("received", False)):
        reducer = EViT(0.5, score=score)
        probe = Probe(x, q, k, k, prefix=1, needs=reducer.capabilities.needs)
        step = Site("after_attention", Step(0, 0, "keep", 0.5), 6, 1)
        reduction = reducer.reduce(Tokens(x, Grid(1, 1, 5), 1), probe, step)
        assert reduction is not None
        assert reduction.apply(x).requires_grad is flows


def test_all_attention_on_kept_tokens_gives_no_nan() -> None:
    x = torch.randn(1, 6, 4)
    k = torch.zeros(1, 1, 6, 4)
    k[0, 0, 2] = 1000.0
    q = torch.ones(1, 1, 6, 4)
    reducer = EViT(0.4, score="class", normalise=True)
    probe = Probe(x, q, k, k, prefix=1, needs=reducer.capabilities.needs)
    reduction = reducer.reduce(
        Tokens(x, Grid(1, 1, 5), 1), probe, Site("after_attention", Step(0, 0, "keep", 0.4), 6, 1)
    )
    assert reduction is not None
    assert bool(reduction.apply(x).isfinite().all())


GEOMETRY = Geometry(
    depth=12, dim=384, heads=6, head_dim=64, mlp_hidden=1536, grid=Grid(1, 14, 14), prefix=1, classes=1000,
    kernel=(1, 16, 16), video=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "fuse", "tokens"),
    [
        (0.9, True, [179, 163, 148]),
        (0.7, True, [140, 100, 72]),
        (0.5, True, [100, 52, 28]),
        (0.9, False, [178, 161, 145]),
        (0.7, False, [139, 98, 69]),
        (0.5, False, [99, 50, 26]),
    ],
)
def test_token_counts_of_the_official_models(keep: float, fuse: bool, tokens: list[int]) -> None:
    """DeiT-S with blocks 3, 6, 9; class token included (computed from the published MACs of each model)."""
    reducer = EViT(keep, fuse=fuse)
    n, found = 196, []
    for step in reducer.schedule.steps(12):
        n = reducer.promise(step, n, None, GEOMETRY).left
        found.append(n + 1)
    assert [step.block for step in reducer.schedule.steps(12)] == [3, 6, 9]
    assert found == tokens


def test_a_step_that_keeps_all_adds_no_token() -> None:
    assert EViT(0.9).promise(Step(0, 0, "keep", 0.9), 5, 1, GEOMETRY) == Promise(5, 1)
    assert EViT(0.9).promise(Step(0, 0, "keep", 0.9), 20, 1, GEOMETRY) == Promise(19, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.5, "tokens": 3}, "give keep or tokens, not both: keep = 0.5, tokens = 3"),
        ({"score": "attention"}, "score = 'attention' is not one of auto, class, received, mean_query"),
        ({"order": "random"}, "order = 'random' is not one of score, position"),
        ({"pool": "max"}, "pool = 'max' is not one of mass, mean"),
        ({"keep": 0.0}, r"keep = 0 is not in \(0, 1\]"),
        ({"tokens": 0}, "tokens = 0 is not a whole number of at least 1"),
    ],
)
def test_wrong_settings_are_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        EViT(**settings)


@pytest.mark.parametrize("tokens", [197, 140])
def test_a_step_costs_a_row_of_attention_or_all_rows_and_the_sum_of_the_rest(tokens: int) -> None:
    step, row, width = Step(3, 0, "keep", 0.7), tokens * 6 * 64, tokens * 384
    assert EViT(0.7).macs(tokens, GEOMETRY, step) == row + width
    assert EViT(0.7, fuse=False).macs(tokens, GEOMETRY, step) == row
    assert EViT(0.7, score="mean_query").macs(tokens, GEOMETRY, step) == row + width
    assert EViT(0.7, score="received", fuse=False).macs(tokens, GEOMETRY, step) == row * tokens


def test_the_keep_rate_shrinks_along_half_a_cosine() -> None:
    def rate(iteration: int) -> float:
        return shrinking_rate(iteration, iteration // 10, 0.5, start=2, end=6, per_epoch=10)

    assert [rate(i) for i in (0, 19)] == [1.0, 1.0]
    assert rate(20) == 1.0
    assert rate(40) == pytest.approx(0.75)
    assert [rate(i) for i in (60, 99)] == [0.5, 0.5]
    falling = [rate(i) for i in range(20, 60)]
    assert falling == sorted(falling, reverse=True)
    assert shrinking_rate(0, 0, 0.5, start=0, end=0, per_epoch=10) == 0.5


def test_registers_are_no_class_token() -> None:
    """A host with registers alone: the first of them must not be taken for a class token."""
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 3}
    host = timm.models.VisionTransformer(**sizes, class_token=False, reg_tokens=2, global_pool="avg").eval()
    fast = attach(host, EViT(keep=0.5, fuse=False))
    assert fast.notes == ("EViT-style (received attention), rest dropped",)
    with pytest.raises(ValueError, match="class token"):
        attach(host, EViT(keep=0.5, score="class"))
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        automatic = fast.run(pixels, record=True)
        received = attach(host, EViT(keep=0.5, fuse=False, score="received")).run(pixels, record=True)
    for (_, ours), (_, theirs) in zip(automatic.steps, received.steps, strict=True):
        assert torch.equal(ours.positions(), theirs.positions())
