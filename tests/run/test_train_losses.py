"""Auxiliary losses: smallest where the answers are right, and blind to tokens without the object."""

from __future__ import annotations

import math

import pytest
import torch

from tokred.data.synthetic import SyntheticActions, object_share
from tokred.run.train_losses import OBJECT_SHARE, AuxHeads, auxiliary_loss, shape_loss
from tokred.run.train_spec import parse_spec


def test_the_shape_is_asked_for_at_the_objects_tokens_alone() -> None:
    scene = SyntheticActions(4, size=16, frames=4).scene(range(4))
    seen = object_share(scene, 2, 4, 4).flatten(1) >= OBJECT_SHARE
    assert 0 < int(seen.sum()) < seen.numel()
    heads = AuxHeads(6, 6, shape=True)
    tokens = torch.randn(4, seen.shape[1], 6, requires_grad=True)
    loss = shape_loss(heads, tokens, scene, seen, None)
    (gradient,) = torch.autograd.grad(loss, tokens)
    assert torch.equal(gradient.abs().sum(-1) > 0, seen)


def test_right_answers_cost_less_than_wrong_ones() -> None:
    scene = SyntheticActions(8, size=16, frames=4).scene(range(8))
    seen = torch.ones(8, 3, dtype=torch.bool)
    heads = AuxHeads(10, 10, shape=True)
    assert heads.shape is not None
    with torch.no_grad():
        heads.shape.weight.copy_(torch.eye(10))
        heads.shape.bias.zero_()
    right = torch.nn.functional.one_hot(scene.appearance, 10).float()[:, None].expand(8, 3, 10)
    assert shape_loss(heads, right, scene, seen, None) < 0.5 * shape_loss(heads, right.roll(1, -1), scene, seen, None)


def test_a_share_of_the_tokens_is_matched_with_its_places() -> None:
    scene = SyntheticActions(2, size=16, frames=4).scene(range(2))
    heads, tokens = AuxHeads(6, 6, shape=True), torch.randn(2, 8, 6)
    seen = torch.zeros(2, 8, dtype=torch.bool)
    seen[:, [1, 5]] = True
    keep = torch.tensor([[1, 2, 5], [0, 1, 5]])
    whole = shape_loss(heads, tokens, scene, seen, None)
    part = shape_loss(heads, tokens.gather(1, keep[..., None].expand(-1, -1, 6)), scene, seen, keep)
    torch.testing.assert_close(whole, part)


SPEC = parse_spec(
    {"name": "x", "data": {"size": 16, "frames": 4}, "stages": [{"name": "s", "steps": 1, "lr": [1, 1]}], "model": {}}
)


def test_a_reduced_model_answers_for_the_patches_that_its_tokens_carry() -> None:
    scene = SyntheticActions(2, size=16, frames=4).scene(range(2))
    heads, tokens, features = AuxHeads(6, 6, shape=True), torch.randn(2, 8, 6), torch.randn(2, 6)
    seen = torch.zeros(2, 8, dtype=torch.bool)
    seen[:, [1, 5]] = True

    def losses(x: torch.Tensor, keep: torch.Tensor | None, carrier: torch.Tensor | None) -> list[float]:
        return [
            auxiliary_loss(heads, x, features, scene, seen, keep, SPEC, carrier).item(),
            shape_loss(heads, x, scene, seen, keep, carrier).item(),
        ]

    everything = torch.arange(8).expand(2, -1)
    assert losses(tokens, None, everything) == pytest.approx(losses(tokens, None, None))
    # Dropping is the same as having seen the kept patches alone, whatever the order of the tokens.
    keep = torch.tensor([[1, 2, 5], [0, 1, 5]])
    kept = tokens.gather(1, keep[..., None].expand(-1, -1, 6))
    order = torch.tensor([2, 0, 1])
    carrier = torch.full((2, 8), -1).scatter(1, keep[:, order], torch.arange(3).expand(2, -1))
    assert losses(kept[:, order], None, carrier) == pytest.approx(losses(kept, keep, None))
    # A merged token answers for all of its patches as copies of it would.
    merged = torch.tensor([0, 0, 1, 1, 2, 2, 2, 3]).expand(2, -1)
    copies = tokens[:, :4].gather(1, merged[..., None].expand(-1, -1, 6))
    assert losses(tokens[:, :4], None, merged) == pytest.approx(losses(copies, None, None))
    gone = torch.full((2, 8), -1)
    assert losses(tokens, None, gone)[1] == 0, "nothing is left to answer for"
    assert math.isfinite(losses(tokens, None, gone)[0])


def test_heads_without_a_shape_refuse() -> None:
    scene = SyntheticActions(1, size=16, frames=4).scene([0])
    with pytest.raises(ValueError, match="do not tell shapes"):
        shape_loss(AuxHeads(6, 6), torch.randn(1, 2, 6), scene, torch.ones(1, 2, dtype=torch.bool), None)


def test_a_model_of_single_tubelets_is_asked_for_places_and_not_for_displacements() -> None:
    scene = SyntheticActions(2, size=16, frames=4).scene(range(2))
    heads, tokens, features = AuxHeads(6, 6, steps=True), torch.randn(2, 8, 6), torch.randn(2, 6)
    steps = torch.randn(2, 2, 6, requires_grad=True)
    seen = torch.ones(2, 8, dtype=torch.bool)
    loss = auxiliary_loss(heads, tokens, features, scene, seen, None, SPEC, steps=steps)
    weight, read = torch.autograd.grad(loss, [heads.token.weight, steps])
    told = weight.abs().sum(1) > 0
    assert told.tolist() == [True, True, True, False, False, False]
    assert bool((read.abs().sum(-1) > 0).all())


def test_the_feature_of_a_tubelet_is_asked_for_that_tubelets_place() -> None:
    scene = SyntheticActions(2, size=16, frames=4).scene(range(2))
    heads, tokens, features = AuxHeads(3, 3, steps=True), torch.randn(2, 8, 3), torch.randn(2, 3)
    assert heads.step is not None
    with torch.no_grad():
        heads.step.weight.copy_(torch.eye(3))
        heads.step.bias.zero_()
    place = (scene.rendered.centre / 8 - 1).reshape(2, 2, -1, 2).mean(2)
    size = scene.rendered.scale.log().reshape(2, 2, -1).mean(2)
    right = torch.cat([place, size[..., None]], dim=-1)
    seen = torch.ones(2, 8, dtype=torch.bool)
    losses = [
        auxiliary_loss(heads, tokens, features, scene, seen, None, SPEC, steps=steps).item()
        for steps in (right, right.flip(1), right + 1)
    ]
    assert losses[0] < losses[1] < losses[2]
    assert losses[2] - losses[0] == pytest.approx(5.0, rel=1e-4), "one, times the weight of regressions"


def test_heads_without_steps_refuse_them() -> None:
    scene = SyntheticActions(1, size=16, frames=4).scene([0])
    seen = torch.ones(1, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="do not read the features of single tubelets"):
        auxiliary_loss(
            AuxHeads(6, 6), torch.randn(1, 8, 6), torch.randn(1, 6), scene, seen, None, SPEC, steps=torch.ones(1, 2, 6)
        )
