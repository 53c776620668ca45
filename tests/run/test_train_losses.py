"""Auxiliary losses: smallest where the answers are right, and blind to tokens without the object."""

from __future__ import annotations

import pytest
import torch

from tokred.data.synthetic import SyntheticActions, object_share
from tokred.run.train_losses import OBJECT_SHARE, AuxHeads, shape_loss


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


def test_heads_without_a_shape_refuse() -> None:
    scene = SyntheticActions(1, size=16, frames=4).scene([0])
    with pytest.raises(ValueError, match="do not tell shapes"):
        shape_loss(AuxHeads(6, 6), torch.randn(1, 2, 6), scene, torch.ones(1, 2, dtype=torch.bool), None)
