"""DynamicViT on hosts with stages: every token stays, and the best get the whole MLP."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tokred
from tokred.attach import Attached, attach, detach
from tokred.backbones.geometry import Geometry, Stage
from tokred.dry import dry_run
from tokred.learned import LearnedError
from tokred.light import Light
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.handles import fvcore_macs
from tokred.methods import DynamicViT
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid

WINDOWS = default_backbones()[-1]
"""3 x 7 x 10 patches, then 60 and 18 tokens, in blocks 1 and 2, and in block 3."""


def sharpened(reducer: DynamicViT) -> DynamicViT:
    """Layers that tell tokens apart."""
    with torch.no_grad():
        for i, parameter in enumerate(reducer.parameters()):
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * 0.5)
    return reducer


def at_work(reducer: DynamicViT) -> tuple[Attached, Tensor]:
    model, pixels = WINDOWS.build()
    fast = attach(model, reducer)
    sharpened(reducer)
    return fast, pixels


def swin(dim: int, third: int) -> Geometry:
    """An image Swin: the first stage of 56 x 56 tokens, windows of 7 x 7, 1,000 classes."""
    stages = tuple(Stage(depth, dim * 2**i, dim * 2**i // 32, (1, 7, 7)) for i, depth in enumerate((2, 2, third, 2)))
    known: dict[str, Any] = {"final_norm_tokens": True, "class_token": False, "stages": stages, "embed_norm": True}
    return Geometry(6 + third, dim, dim // 32, 32, 4 * dim, Grid(1, 56, 56), 0, 1000, (1, 4, 4), **known)


@pytest.mark.parametrize(
    ("dim", "third", "at", "dense", "printed"),
    [(96, 6, (5, 6, 7), 4.5, 4.0), (96, 18, (6, 8, 10), 8.7, 6.9), (128, 18, (6, 8, 10), 15.4, 12.1)],
    ids="TSB",
)
def test_the_cost_is_the_published_one(dim: int, third: int, at: tuple[int, ...], dense: float, printed: float) -> None:
    """DynamicSwin-T, -S and -B at 0.7: shares 0.7, 0.5 and 0.3 inside the third stage."""
    geometry = swin(dim, third)
    assert count(geometry, unreduced_plan(geometry)).gmac == pytest.approx(dense, abs=0.1)
    report = count(geometry, dry_run(DynamicViT((0.7, 0.5, 0.3), at=at), geometry))
    assert report.gmac == pytest.approx(printed, abs=0.1)


def test_every_stage_but_the_first_gives_its_best_tokens_the_whole_mlp() -> None:
    reducer = DynamicViT(0.7)
    fast, pixels = at_work(reducer)
    plan = fast.plan
    assert plan is not None
    assert plan.attention == (210, 60, 60, 18)
    assert plan.mlp == (210, 42, 42, 12)
    run = fast.run(pixels, trace=True, record=True)
    assert [(site.block, site.name) for site, _ in run.steps] == [(1, "before_block"), (3, "before_block")]
    assert run.tokens.source is not None
    assert bool((run.tokens.source >= 0).all()), "no patch is lost"
    embedded = fast.adapter.embed(fast.host, pixels, None)
    host: Any = fast.host
    x, _ = host.layers[0].downsample(host.layers[0].blocks[0](embedded.x, embedded.grid), embedded.grid)
    scores = reducer.predictors[0](x)[..., 0]
    made = run.steps[0][1]
    assert isinstance(made, Light)
    for row, kept in zip(scores.detach(), made.kept, strict=True):
        assert kept.tolist() == sorted(range(60), key=lambda j: -float(row[j]))[:42]


def test_it_is_the_host_with_another_branch_for_the_tokens_that_are_left_out() -> None:
    """Written out block by block: attention of all tokens, then MLP or linear layer."""
    reducer = DynamicViT(0.5)
    fast, pixels = at_work(reducer)
    run = fast.run(pixels, record=True)
    chosen = {site.block: made for site, made in run.steps}
    host: Any = fast.host
    x, grid = host.embed(pixels)
    number = 0
    for stage in host.layers:
        decided: Any = None
        for block in stage.blocks:
            decided = chosen.get(number, decided)
            x = x + block.attn(block.norm1(x), grid, block.shifted)
            branch = block.mlp(block.norm2(x))
            if decided is not None:
                layer: Any = reducer.light[str(number)]
                kept = torch.zeros(x.shape[:2], dtype=torch.bool).scatter_(1, decided.kept, True)
                branch = torch.where(kept[..., None], branch, layer.linear(layer.norm(x)))
            x = x + branch
            number += 1
        if stage.downsample is not None:
            x, grid = stage.downsample(x, grid)
    assert torch.allclose(run.logits, host.head(host.pool(x)), atol=1e-4)


def test_what_is_counted_runs() -> None:
    fast, pixels = at_work(DynamicViT(0.5))
    report = count(fast.geometry, dry_run(fast.reducer, fast.geometry))
    assert fvcore_macs(fast, (pixels[:1],)).macs == pytest.approx(report.executed_macs, rel=2e-3)
    assert report.reduction > report.executed_reduction, "the shared half of the predictor is multiplied once"
    assert report.macs < count(fast.geometry, dry_run(DynamicViT(0.9), fast.geometry)).macs


def test_later_steps_of_a_stage_decide_anew_among_all_tokens() -> None:
    fast, pixels = at_work(DynamicViT((0.6, 0.5), at=(1, 2)))
    run = fast.run(pixels, record=True)
    (_, first), (_, second) = run.steps
    assert isinstance(first, Light)
    assert isinstance(second, Light)
    assert (first.whole, second.whole) == (36, 30)
    assert any(not set(b.tolist()) <= set(a.tolist()) for a, b in zip(first.kept, second.kept, strict=True))


def test_training_blends_both_paths_and_trains_all_layers() -> None:
    fast, pixels = at_work(DynamicViT(0.7))
    own: Any = fast.reducer
    teacher = attach(fast.host, tokred.build("none"))
    with torch.no_grad():
        answers = teacher.run(pixels)
    fast.train()
    run = fast.run(pixels, record=True)
    policies = [made.policy for _, made in run.steps if isinstance(made, Light)]
    assert len(policies) == 2
    for policy in policies:
        assert policy is not None
        assert set(policy.unique().tolist()) == {0.0, 1.0}
    losses = own.training_losses(run, answers)
    assert set(losses) == {"ratio", "logits", "tokens"}
    targets = [(policy.detach().mean(dim=1) - 0.7).square().mean() for policy in policies if policy is not None]
    assert float(losses["ratio"].detach()) == pytest.approx(float(sum(targets)), rel=1e-5)
    (losses["logits"] + losses["tokens"]).backward()
    for layers in (*own.predictors, *own.light.values()):
        assert all(bool(p.grad.any()) for p in layers.parameters() if p.ndim == 2)


def test_training_computes_what_inference_computes_for_the_same_choice() -> None:
    fast, pixels = at_work(DynamicViT(0.7))
    fast.train()
    drawn = fast.run(pixels[:1], record=True)
    fast.eval()
    own: Any = fast.reducer
    made = iter([step for _, step in drawn.steps])

    def again(tokens: Any, *_: Any) -> Light:
        policy = next(made).policy[0]  # type: ignore[attr-defined]
        order = policy.argsort(descending=True, stable=True)[None]
        return Light(own._path, 0, order, int(policy.sum()), groups=tokens.groups)

    own.reduce = again
    assert torch.allclose(fast(pixels[:1]), drawn.logits, atol=1e-5)


def test_no_token_is_hidden_from_attention_in_training() -> None:
    fast, pixels = at_work(DynamicViT(0.7))
    fast.train()
    assert fast.run(pixels).tokens.policy is None


def test_settings_that_leave_nothing_are_refused_with_the_numbers() -> None:
    model, _ = WINDOWS.build()
    with pytest.raises(ScheduleError, match=r"keep = 0.05 at block 3 leaves int\(18 \* 0.05\) = 0 patches"):
        attach(model, DynamicViT(0.05))
    fast, _ = at_work(DynamicViT(0.7))
    lowest = DynamicViT().strength_range(fast.geometry).strongest
    attach(model, DynamicViT(lowest))


@pytest.mark.parametrize(("at", "fewest"), [("quarters", 18), ((1,), 60), ((1, 2), 60), ((3,), 18)])
def test_the_range_of_its_strength_ends_where_the_smallest_grid_keeps_one_token(at: Any, fewest: int) -> None:
    """Shares do not multiply here: each is of the tokens of its own stage."""
    model, _ = WINDOWS.build()
    geometry = attach(model, DynamicViT(0.7)).geometry
    lowest = DynamicViT(at=at).strength_range(geometry)
    assert (lowest.name, lowest.weakest, lowest.whole) == ("keep", 1.0, False)
    plan = dry_run(DynamicViT(lowest.strongest, at=at), geometry)
    assert min(plan.mlp) == 1
    assert lowest.strongest == pytest.approx(1.5 / fewest)
    with pytest.raises(ScheduleError, match="= 0 patches: allowed is what leaves at least 1"):
        dry_run(DynamicViT(0.6 * lowest.strongest, at=at), geometry)


def test_weights_of_one_form_are_refused_by_the_other() -> None:
    fast, _ = at_work(DynamicViT(0.7))
    own: Any = fast.reducer
    own.mark_trained(3, "here")
    host = detach(fast)
    assert attach(host, own).notes[-1].startswith("every token stays and attends")
    video, _ = default_backbones()[0].build()
    with pytest.raises(LearnedError, match="was trained for a backbone of sizes"):
        attach(video, own)
