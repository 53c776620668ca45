"""The light path: who gets the whole MLP, what it costs, what may follow it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import tokred
from tokred.advance import advance
from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.dry import dry_run
from tokred.light import Light
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.handles import fvcore_macs
from tokred.probe import Probe
from tokred.reducer import Promise, Site, TokenReducer
from tokred.reduction import Keep
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, *_, WINDOWS = default_backbones()


class Skip(TokenReducer):
    """The last tokens go without the MLP: a light path of nothing."""

    site = "before_block"

    def __init__(self, keep: float = 0.5, at: tuple[int, ...] = (1,), scale: float = 0.0) -> None:
        super().__init__(Schedule(at=at, keep=keep))
        self.scale = scale

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Light:
        order = torch.arange(tokens.count, device=tokens.x.device).expand(tokens.x.shape[0], -1)
        return Light(self._path, 7, order, site.left(tokens.count), groups=tokens.groups)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        return Promise(count, groups)

    def _path(self, block: int, x: Tensor) -> Tensor:
        return self.scale * block * x


def light(n: int, whole: int, **known: Any) -> Light:
    return Light(lambda block, x: -x, 5, torch.arange(n - 1, -1, -1)[None], whole, **known)


def half(x: Tensor) -> tuple[Tensor, Tensor]:
    """An MLP half that adds ten."""
    return x + 10, torch.full_like(x, 10.0)


def test_each_token_takes_its_own_path_and_stays_in_its_place() -> None:
    x = torch.arange(1.0, 6.0)[None, :, None]
    made = light(5, 2)
    out, branch = made.feed(half, 3, x)
    assert out.flatten().tolist() == [0, 0, 0, 14, 15]
    assert branch.flatten().tolist() == [-1, -2, -3, 10, 10]
    assert made.kept.tolist() == [[4, 3]]
    assert made.macs(5) == 15
    assert (made.n_in, made.n_out) == (5, 5)
    assert made.positions().tolist() == [[0, 1, 2, 3, 4]]
    assert made.restore(x) is x
    assert made.apply(x) is x


def test_the_whole_mlp_is_computed_for_kept_tokens_alone() -> None:
    seen = []

    def watched(x: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(x.flatten().tolist())
        return half(x)

    light(5, 2).feed(watched, 0, torch.arange(1.0, 6.0)[None, :, None])
    assert seen == [[5.0, 4.0]]


def test_training_blends_both_paths_and_the_decision_gets_the_difference_as_gradient() -> None:
    policy = torch.tensor([[1.0, 0.0, 1.0]], requires_grad=True)
    x = torch.tensor([1.0, 2.0, 3.0])[None, :, None]
    made = Light(lambda block, y: -y, 5, None, 0, policy)
    out, branch = made.feed(half, 0, x)
    assert out.flatten().tolist() == [11, 0, 13]
    assert branch.flatten().tolist() == [10, -2, 10]
    out.sum().backward()
    assert policy.grad is not None
    assert policy.grad.tolist() == [[11, 12, 13]]
    assert made.macs(3) == 15
    with pytest.raises(ValueError, match="differs between samples"):
        _ = made.kept


def test_tokens_know_how_many_get_the_whole_mlp() -> None:
    tokens = Tokens(torch.zeros(1, 5, 2), Grid(1, 1, 5), groups=1)
    after = advance(tokens, light(5, 2))
    assert (tokens.fed, after.fed, after.count, after.groups) == (5, 2, 5, 1)
    assert advance(after, light(5, 4)).fed == 4


def test_moved_tokens_end_it_and_a_later_mlp_is_refused() -> None:
    tokens = Tokens(torch.zeros(1, 5, 2), Grid(1, 1, 5))
    after = advance(advance(tokens, light(5, 2)), Keep(torch.tensor([[4, 1, 0, 3, 2]]), 5))
    assert after.light is not None
    with pytest.raises(ScheduleError, match="block 2: an earlier step gave some tokens a light path"):
        after.light.feed(half, 2, after.x)
    model, _ = WINDOWS.build()
    with pytest.raises(ScheduleError, match="moved tokens in the same stage"):
        attach(model, tokred.compose(Skip(), tokred.build("random_drop:keep=0.5,at=[1]")))


@pytest.mark.parametrize("backbone", [VIDEO, WINDOWS], ids=["video", "windows"])
def test_any_reducer_can_use_it_and_its_cost_is_counted(backbone: Any) -> None:
    model, pixels = backbone.build()
    fast = attach(model, Skip())
    plan = fast.plan
    assert plan is not None
    n = plan.attention[1]
    kept = -(-n // 2)
    assert plan.mlp[1] == kept
    assert plan.light[1] == 7 * (n - kept)
    assert plan.final == attach(model, tokred.build("none")).plan.final  # type: ignore[union-attr]
    run = fast.run(pixels[:1], trace=True, record=True)
    assert run.tokens.source is not None
    assert bool((run.tokens.source >= 0).all()), "no patch is dropped"
    report, bare = (count(fast.geometry, p) for p in (plan, unreduced_plan(fast.geometry)))
    assert report.blocks[1]["mlp"] == bare.blocks[1]["mlp"] * kept // n + 7 * (n - kept)


def test_what_runs_is_what_is_counted() -> None:
    model, pixels = WINDOWS.build()
    fast = attach(model, Skip())
    report = count(fast.geometry, dry_run(fast.reducer, fast.geometry))
    assert fast.plan is not None
    free = sum(fast.plan.light)
    assert free > 0
    assert fvcore_macs(fast, (pixels[:1],)).macs == report.executed_macs - free, "this path multiplies by no matrix"


def test_it_ends_with_the_stage() -> None:
    model, pixels = WINDOWS.build()
    plan = attach(model, Skip(at=(1,))).plan
    assert plan is not None
    assert [a - m for a, m in zip(plan.attention, plan.mlp, strict=True)] == [0, 30, 30, 0]
    run = attach(model, Skip(at=(1,))).run(pixels)
    assert run.tokens.light is None


def test_attention_sees_every_token() -> None:
    """Where the light path equals the MLP, nothing changes: attention has all tokens, and each is in its place."""
    model, pixels = WINDOWS.build()
    fast = attach(model, Skip(keep=0.3, at=(1,)))
    blocks: Any = fast.adapter.blocks(model)
    fast.reducer._path = lambda block, x: blocks[block].mlp(blocks[block].norm2(x))  # type: ignore[method-assign]
    with torch.no_grad():
        assert torch.allclose(fast(pixels), model(pixels), atol=1e-5)


def test_a_reducer_that_runs_blocks_itself_cannot_follow() -> None:
    model, _ = tokred.testing.default_backbones()[1].build()
    both = tokred.compose(Skip(at=(0,)), tokred.build("eventful:r=8"))
    with pytest.raises(ScheduleError, match="no light path"):
        attach(model, both)(torch.zeros(1, 3, 32, 32))
