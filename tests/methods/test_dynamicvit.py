"""DynamicViT: what inference keeps, what training masks, its losses, its refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tokred
from tokred.attach import Attached, attach
from tokred.dry import dry_run
from tokred.learned import LearnedError
from tokred.methods import DynamicViT
from tokred.reduction import Keep, Mask
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones

VIDEO, IMAGE, *_ = default_backbones()[:2]


def sharpened(reducer: DynamicViT) -> DynamicViT:
    """Predictors that tell tokens apart."""
    with torch.no_grad():
        for i, parameter in enumerate(reducer.parameters()):
            if parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i)) * 0.5)
    return reducer


def at_work(reducer: DynamicViT, backbone: Any = IMAGE) -> tuple[Attached, Tensor]:
    model, pixels = backbone.build()
    fast = attach(model, reducer)
    sharpened(reducer)
    return fast, pixels


def test_every_step_keeps_its_share_of_the_original_tokens_in_score_order() -> None:
    reducer = DynamicViT(0.7)
    fast, pixels = at_work(reducer)
    run = fast.run(pixels, record=True)
    counts = [made.n_out - 2 for _, made in run.steps]
    assert counts == [int(64 * 0.7), int(64 * 0.7**2), int(64 * 0.7**3)] == [44, 31, 21]
    x = fast.adapter.embed(fast.host, pixels, None).x
    for block in fast.adapter.blocks(fast.host)[:1]:
        x = block(x)
    scores = reducer.predictors[0](x[:, 2:])[..., 0]
    site, first = run.steps[0]
    assert (site.block, site.name) == (1, "before_block")
    assert isinstance(first, Keep)
    for row, kept in zip(scores.detach(), first.index, strict=True):
        best = sorted(range(64), key=lambda j: -float(row[j]))[:44]
        assert kept.tolist() == [0, 1, *(j + 2 for j in best)]


def test_shares_can_be_listed() -> None:
    geometry = at_work(DynamicViT(0.7))[0].geometry
    plan = dry_run(DynamicViT((0.9, 0.5, 0.5)), geometry)
    assert [step.n_out - 2 for step in plan.steps] == [57, 32]
    assert plan.final == 34
    with pytest.raises(ScheduleError, match="rises"):
        DynamicViT((0.5, 0.9))


def test_a_step_that_asks_for_more_than_there_is_says_so() -> None:
    model, _ = IMAGE.build()
    fast = attach(model, tokred.compose(tokred.build("random_drop:keep=0.1,at=[0]"), DynamicViT(0.7)))
    assert [step.n_out - 2 for step in fast.plan.steps] == [7]  # type: ignore[union-attr]
    assert any("44 tokens wanted, 7 are there" in note for note in fast.notes)


def test_what_would_leave_no_token_is_refused_with_the_numbers() -> None:
    model, _ = IMAGE.build()
    with pytest.raises(ScheduleError, match=r"keep = 0.2 at block 3 leaves int\(64 \* 0.008\) = 0 patches"):
        attach(model, DynamicViT(0.2))
    with pytest.raises(ScheduleError, match="ratio_weight = -1"):
        DynamicViT(0.7, ratio_weight=-1)


def test_cost_is_the_published_formula() -> None:
    fast, _ = at_work(DynamicViT(0.7))
    assert fast.plan is not None
    c = 24
    for step in fast.plan.steps:
        n = step.n_in - 2
        assert step.macs == n * (c * c + c * c // 2 + c * c // 8 + c // 2)
        assert step.executed_macs < step.macs + 5 * n * c, "the shared half is multiplied once"


@pytest.mark.parametrize("backbone", [VIDEO, IMAGE], ids=["video", "image"])
def test_training_masks_and_removes_nothing(backbone: Any) -> None:
    fast, pixels = at_work(DynamicViT(0.7), backbone)
    fast.train()
    run = fast.run(pixels, record=True)
    prefix = fast.geometry.prefix
    assert run.tokens.count == fast.geometry.tokens
    policies = [made.policy for _, made in run.steps if isinstance(made, Mask)]
    assert len(policies) == len(run.steps) == 3
    for before, after in zip([torch.ones_like(policies[0]), *policies], policies, strict=False):
        assert set(after.unique().tolist()) == {0.0, 1.0}
        assert bool((after <= before).all()), "what is dropped stays dropped"
        assert bool((after[:, :prefix] == 1).all())
    assert 0.02 < float(policies[0][:, prefix:].detach().mean()) < 0.98
    assert run.tokens.policy is policies[-1]


def test_dropped_tokens_have_no_say_in_training() -> None:
    """The training logits are those of a model that never saw the dropped tokens, up to the leak of the mask."""
    fast, pixels = at_work(DynamicViT((0.5,), at=(1,)), VIDEO)
    fast.train()
    run = fast.run(pixels[:1], record=True)
    _, made = run.steps[0]
    assert isinstance(made, Mask)
    kept = made.policy[0].nonzero()[:, 0]
    vit = fast.host
    x = fast.adapter.blocks(vit)[0](fast.adapter.embed(vit, pixels[:1], None).x)[:, kept]
    for block in fast.adapter.blocks(vit)[1:]:
        x = block(x)
    tokens = replace(run.tokens, x=x, policy=None)
    alone = fast.adapter.classify(vit, fast.adapter.features(vit, tokens, "mean"), tokens, "mean")
    assert torch.allclose(run.logits, alone, atol=1e-3)


def test_decisions_in_training_come_from_the_clip_and_the_step_alone() -> None:
    fast, pixels = at_work(DynamicViT(0.7))
    fast.train()

    def decided(clips: Tensor) -> Tensor:
        return torch.stack([made.policy for _, made in fast.run(clips, record=True).steps if isinstance(made, Mask)])

    state = torch.get_rng_state()
    first = decided(pixels)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(decided(pixels), first)
    assert torch.equal(decided(pixels[1:2]), first[:, 1:2])
    fast.reducer.progress(1, 10)  # type: ignore[operator]
    assert not torch.equal(decided(pixels), first)


def test_gradient_checkpointing_recomputes_the_same_decisions() -> None:
    model, pixels = IMAGE.build()
    plain = attach(model, sharpened_after_attach(model)).train()
    plain(pixels).square().sum().backward()
    wanted = {name: p.grad.clone() for name, p in plain.named_parameters() if p.grad is not None}
    plain.zero_grad()
    model.set_grad_checkpointing(True)  # type: ignore[operator]
    plain(pixels).square().sum().backward()
    got = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert got.keys() == wanted.keys()
    assert all(torch.allclose(got[name], wanted[name], rtol=1e-4, atol=1e-5) for name in wanted)


def sharpened_after_attach(model: Any) -> DynamicViT:
    reducer = DynamicViT(0.7)
    attach(model, reducer)
    return sharpened(reducer)


def test_the_gradient_of_a_decision_can_be_bounded() -> None:
    largest = {}
    for bound in (None, 1e-3, 1e9):
        fast, pixels = at_work(DynamicViT((0.5,), at=(1,), gradient_bound=bound), VIDEO)
        fast.train()
        fast(pixels).square().sum().backward()
        stage: Any = fast.reducer.predictors[0]  # type: ignore[index]
        largest[bound] = float(stage.out_conv[4].weight.grad.abs().max())
    assert largest[1e9] == largest[None]
    assert 0 < largest[1e-3] < 0.1 * largest[1e9]
    with pytest.raises(ScheduleError, match="gradient_bound = 0"):
        DynamicViT(0.5, gradient_bound=0.0)


def test_the_losses_of_a_step_train_the_predictors() -> None:
    fast, pixels = at_work(DynamicViT(0.7), VIDEO)
    teacher = attach(fast.host, tokred.build("none"))
    with torch.no_grad():
        answers = teacher.run(pixels)
    fast.train()
    losses = fast.reducer.training_losses(fast.run(pixels, record=True), answers)  # type: ignore[operator]
    assert set(losses) == {"ratio", "logits", "tokens"}
    sum(losses.values()).backward()
    for stage in fast.reducer.predictors:  # type: ignore[union-attr]
        assert bool(stage.out_conv[4].weight.grad.any())  # type: ignore[union-attr]
    alone = fast.reducer.training_losses(fast.run(pixels, record=True), None)  # type: ignore[operator]
    assert set(alone) == {"ratio"}
    own, pixels = at_work(DynamicViT(0.7, distill_weight=0.0), VIDEO)
    own.train()
    assert set(own.reducer.training_losses(own.run(pixels, record=True), answers)) == {"ratio"}  # type: ignore[operator]


def test_steps_on_the_losses_bring_the_kept_share_to_its_target() -> None:
    fast, pixels = at_work(DynamicViT((0.3,), at=(1,), distill_weight=0.0), VIDEO)
    fast.train()
    own: Any = fast.reducer
    optimizer = torch.optim.Adam(own.parameters(), lr=0.01)
    for step in range(40):
        own.progress(step, 40)
        loss = own.training_losses(fast.run(pixels, record=True), None)["ratio"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shares = []
    for step in range(40, 48):
        own.progress(step, 48)
        made = fast.run(pixels, record=True).steps[0][1]
        assert isinstance(made, Mask)
        shares.append(float(made.policy.mean()))
    assert abs(sum(shares) / len(shares) - 0.3) < 0.08


def test_official_predictors_load_by_their_names() -> None:
    reducer = DynamicViT(0.7, weights=None)
    fast, _ = at_work(reducer)
    official = {f"score_predictor.{name}": tensor + 1 for name, tensor in reducer.predictors.state_dict().items()}
    other = DynamicViT(0.7, weights=None)
    attach(fast.host, other)
    other.load_official({**official, "head.weight": torch.ones(2)}, "their file")
    assert torch.equal(other.predictors[2].out_conv[4].weight, official["score_predictor.2.out_conv.4.weight"])  # type: ignore[union-attr]
    assert "their file" in other.describe(fast.geometry)[0]
    with pytest.raises(LearnedError, match="do not fit"):
        other.load_official({"score_predictor.0.in_conv.0.weight": torch.ones(24)})
