from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.backbones.videomae import VideoViT
from tokred.compose import compose
from tokred.dry import dry_run
from tokred.methods import (
    STA,
    DynamicViT,
    EViT,
    FewerFrames,
    GridKeep,
    LowerResolution,
    RandomDrop,
    RandomMerge,
    ToMe,
    TopK,
    VidTLDR,
)
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_top
from tokred.reduction import Reduction
from tokred.schedule import Schedule, ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

BASE = Geometry(
    depth=12, dim=48, heads=3, head_dim=16, mlp_hidden=96, grid=Grid(8, 4, 6), prefix=0, classes=7, kernel=(2, 16, 16)
)
IMAGE = Geometry(
    depth=12, dim=48, heads=3, head_dim=16, mlp_hidden=96, grid=Grid(1, 8, 8), prefix=2, classes=7, kernel=(1, 4, 4)
)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("reducer", "mlp"),
    [
        (ToMe(r=10), [182, 172, 162, 152, 142, 132, 122, 112, 102, 92, 82, 72]),
        (STA(r=8), [192] + 4 * [128] + 4 * [96] + 3 * [80]),
        (RandomDrop(0.5), [192] + 4 * [96] + 4 * [48] + 3 * [24]),
        (EViT(0.5), 3 * [192] + 3 * [97] + 3 * [50] + 3 * [26]),
        (GridKeep(0.3), [192] + 4 * [64] + 4 * [24] + 3 * [8]),
        (TopK(tuple([0.5] * 3), at=(0, 1, 11)), [96] + 10 * [48] + [24]),
        (FewerFrames(3), 12 * [72]),
        (LowerResolution(2), 12 * [48]),
    ],
    ids=lambda value: getattr(value, "spec", ""),
)
def test_token_counts_without_a_model(reducer: TokenReducer, mlp: list[int], device: str) -> None:
    plan = dry_run(reducer, BASE, device=device)
    assert list(plan.mlp) == mlp
    assert plan.final <= plan.mlp[-1]
    assert plan.embedded == plan.attention[0]


def test_a_prefix_is_counted_and_never_reduced() -> None:
    plan = dry_run(EViT(0.5, at=(0,)), IMAGE)
    assert (plan.attention[0], plan.final) == (66, 2 + 32 + 1)
    assert [(s.n_in, s.n_out) for s in plan.steps] == [(66, 35)]


@pytest.mark.parametrize("backbone", default_backbones(), ids=lambda b: b.name)
@pytest.mark.parametrize(
    "reducer",
    [ToMe(r=9), EViT(0.6, at=(0, 1)), TopK(0.5), RandomMerge(0.4), STA(r=3), GridKeep(0.5), LowerResolution(2)],
    ids=lambda r: r.spec,
)
def test_the_plan_is_what_a_real_forward_does(reducer: TokenReducer, backbone: object) -> None:
    host, clips = backbone.build()  # type: ignore[attr-defined]
    fast = attach(host, reducer)
    assert fast.plan is not None
    with torch.no_grad():
        run = fast.run(clips, record=True)
    assert run.tokens.count == fast.plan.final
    ran = [(site.block, site.name, r.n_in, r.n_out) for site, r in run.steps]
    assert ran == [(s.block, s.site, s.n_in, s.n_out) for s in fast.plan.steps]


def test_another_grid_has_another_plan() -> None:
    assert dry_run(RandomDrop(0.5, at=(0,)), BASE, Grid(4, 4, 6)).final == 48
    assert dry_run(STA(r=8, at=(0,)), BASE, Grid(4, 4, 6)).final == 4 * 16


@pytest.mark.parametrize("reducer", [STA(r=8), STA(r=8, grouping="frame", similarity="ffn")], ids=lambda r: r.spec)
def test_the_published_cost_of_sta_is_the_formula_of_its_products(reducer: STA) -> None:
    d = BASE.dim if reducer.similarity == "ffn" else BASE.head_dim
    n, expected = 192, []
    for stage, drop in enumerate((8, 4, 2)):
        groups = 8 if reducer.grouping == "frame" else 8 // 2**stage
        g, r = n // groups, drop * 8 // groups
        expected.append((g + 1) // 2 * (g // 2) * d + g * g * d + (groups - 2) * g * (g - r) * (d + 1))
        n -= groups * r
    assert [step.macs for step in dry_run(reducer, BASE).steps] == expected


def test_costs_are_those_of_the_smaller_input_where_there_is_one() -> None:
    small = dry_run(compose(FewerFrames(4), STA(r=8, at=(0,))), BASE).steps[0]
    direct = dry_run(STA(r=8, at=(0,)), BASE, Grid(4, 4, 6)).steps[0]
    assert (small.macs, small.n_in) == (direct.macs, direct.n_in)


@pytest.mark.parametrize("reducer", [ToMe(r=20, at=(0,)), TopK(0.5, at=(0,)), EViT(0.5, at=(0,))], ids=lambda r: r.spec)
def test_executed_products_are_those_that_torch_counts(reducer: TokenReducer) -> None:
    (step,) = dry_run(reducer, BASE).steps
    q, k, v = (torch.randn(1, 3, 192, 16) for _ in range(3))
    x = torch.randn(1, 192, 48)
    probe = Probe(x, q, k, v, needs=reducer.capabilities.needs)
    site = Site("after_attention", reducer.steps(BASE)[0], 12, 8)
    with FlopCounterMode(display=False) as counter:
        reduction = reducer.reduce(Tokens(x, BASE.grid, groups=8), probe, site)
        assert reduction is not None
        reduction.apply(x)
    assert step.executed_macs == counter.get_total_flops() // 2


def test_notes_name_every_correction_also_in_a_composition() -> None:
    first, second = dry_run(ToMe(r=100, at=(0, 1)), BASE).notes
    assert first.startswith("block 0: r = 100 clamped to 96")
    assert second.startswith("block 1: r = 100 clamped to 48")
    (behind,) = dry_run(compose(RandomDrop(0.25, at=(0,)), ToMe(r=40, at=(1,))), BASE).notes
    assert behind.startswith("block 1: r = 40 clamped to 24")


def test_impossible_settings_are_refused_also_behind_another_part() -> None:
    with pytest.raises(ScheduleError, match="tokens = 60 at block 1 is impossible with 48 tokens"):
        dry_run(compose(RandomDrop(0.25, at=(0,)), EViT(tokens=60, at=(1,))), BASE)


class Content(TokenReducer):
    """Keeps one token per positive mean."""

    capabilities = Capabilities(static_counts=False)

    def __init__(self) -> None:
        super().__init__(Schedule(at=(0,), keep=0.5))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        score = tokens.patches.mean(-1)
        return keep_top(tokens, score, max(1, int((score > 0).sum(1).min())))


def test_counts_that_depend_on_the_content_are_not_planned() -> None:
    with pytest.raises(ScheduleError, match="Content: token counts depend on the content; measure them on clips"):
        dry_run(Content(), BASE)
    host, clips = default_backbones()[0].build()
    fast = attach(host, Content())
    assert fast.plan is None
    with torch.no_grad():
        assert fast(clips).shape == (3, 7)


class Counting(TokenReducer):
    """Remembers how often it was asked."""

    capabilities = Capabilities(stateful=True)

    def __init__(self) -> None:
        super().__init__(Schedule(at=(0,), keep=0.5))
        self.asked = 0

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        self.asked += 1
        return keep_top(tokens, tokens.patches.mean(-1), site.left(tokens.patch_count))


def test_planning_leaves_no_state_in_a_stateful_reducer() -> None:
    reducer = Counting()
    dry_run(reducer, BASE)
    assert reducer.asked == 0


def test_planning_computes_no_attention_rows_and_counts_them_where_a_step_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("planning ran over attention rows")

    monkeypatch.setattr("tokred.saliency.row_statistics", never)
    (topk,) = dry_run(TopK(0.5, at=(0,)), BASE).steps
    assert topk.executed_macs == 192 * 192 * 48
    (tldr,) = dry_run(VidTLDR(r=20, at=(0,)), BASE).steps
    assert tldr.executed_macs == 192 * 192 * 48 + 96 * 96 * 48
    (classed,) = dry_run(TopK(0.5, at=(0,)), IMAGE).steps
    assert classed.executed_macs == 66 * 48


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_learned_parts_are_planned_wherever_their_parameters_are_and_stay_there(
    dtype: torch.dtype, device: str
) -> None:
    reducer = DynamicViT(0.5, at=(1,))
    reducer.prepare(BASE)
    plan = dry_run(reducer, BASE)
    reducer.to(device, dtype)
    assert dry_run(reducer, BASE) == plan
    assert {(held.device.type, held.dtype) for held in reducer.parameters()} == {(device, dtype)}


class OneMoreInTraining(TopK):
    """Keeps other numbers of tokens while it trains."""

    def reduce(self, tokens, probe, site):
        scores = tokens.patches.sum(-1)
        return keep_top(tokens, scores, site.left(tokens.patch_count) - int(self.training))


def test_what_is_planned_is_what_inference_does() -> None:
    reducer = OneMoreInTraining(keep=0.5)
    assert reducer.training
    host = VideoViT(img_size=16, frames=4, patch_size=8, dim=12, depth=3, num_heads=2, num_classes=3).eval()
    plan = attach(host, reducer).plan
    assert plan is not None
    assert plan.final == attach(host, TopK(keep=0.5)).plan.final
    assert not reducer.training, "as its host"
