"""The predictor is the published one; decisions, ratio loss and distillation are what their formulas say."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tokred.distillation import logit_distillation
from tokred.learned import LearnedError, fresh
from tokred.macs import MacCounter
from tokred.predictor import LightLayer, Predictor, gumbel_keep, ratio_loss, token_distillation


def test_the_predictor_is_the_published_one_token_by_token() -> None:
    net: Any = fresh(lambda: Predictor(10), seed=4).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(10)
    x = torch.randn(2, 5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    present = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.float64)
    for mask in (None, present):
        got = net(x, mask)
        for b in range(2):
            inner = F.gelu(F.linear(F.layer_norm(x[b], (10,), *net.in_conv[0].parameters()), net.in_conv[1].weight))
            left = range(5) if mask is None else [j for j in range(5) if present[b, j]]
            shared = sum((inner[j, 5:] for j in left), torch.zeros(5, dtype=torch.float64)) / max(1, len(left))
            for j in range(5):
                y = torch.cat([inner[j, :5], shared])
                y = net.out_conv[4](F.gelu(net.out_conv[2](F.gelu(net.out_conv[0](y)))))
                assert torch.allclose(got[b, j], y.log_softmax(-1), atol=1e-12)


def test_gumbel_decisions_have_the_probability_of_the_predictor_and_a_soft_gradient() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.8, -0.4]).log_softmax(0).expand(1, 20_000, 2).clone().requires_grad_()
    uniforms = torch.rand(1, 20_000, 2, generator=g, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    kept = gumbel_keep(logits, uniforms)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert abs(float(kept.detach().mean()) - math.exp(float(logits.detach()[0, 0, 0]))) < 0.01
    kept.sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad[..., 0] > 0).all())
    assert torch.allclose(logits.grad[..., 0], -logits.grad[..., 1], atol=1e-6)


def test_the_ratio_loss_is_zero_on_target_and_quadratic_off_it() -> None:
    half = torch.tensor([[1.0, 0, 1, 0], [1, 1, 0, 0]])
    assert float(ratio_loss([half], [0.5])) == 0
    assert float(ratio_loss([half, torch.ones(2, 4)], [0.25, 0.5])) == pytest.approx((0.0625 + 0.25) / 2)


def test_distillation_is_zero_for_equal_models_and_ignores_dropped_tokens() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 6, generator=g), torch.randn(3, 6, generator=g)
    assert float(logit_distillation(a, a)) == pytest.approx(0, abs=1e-7)
    wanted = sum(
        (b[:, part].softmax(-1) * (b[:, part].log_softmax(-1) - a[:, part].log_softmax(-1))).sum() / 3
        for part in (slice(0, 2), slice(2, 6))
    )
    assert float(logit_distillation(a, b, (slice(0, 2), slice(2, 6)))) == pytest.approx(float(wanted), rel=1e-5)
    x, y = torch.randn(2, 4, 8, generator=g), torch.randn(2, 4, 8, generator=g)
    kept = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    gap = [(F.layer_norm(x[0, j], (8,)) - F.layer_norm(y[0, j], (8,))).square().mean() for j in (0, 2)]
    assert float(token_distillation(x, y, kept)) == pytest.approx(float(sum(gap)) / 2, rel=1e-5)
    assert float(token_distillation(x, y, torch.zeros(2, 4))) == 0
    with pytest.raises(LearnedError, match="it has 3, the teacher 4"):
        token_distillation(x[:, :3], y, kept)


def test_the_light_layer_costs_what_it_says_and_treats_tokens_one_by_one() -> None:
    layer: Any = fresh(lambda: LightLayer(12))
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))
    with MacCounter() as counter:
        y = layer(x)
    assert counter.macs == 2 * 7 * LightLayer.macs(12)
    wanted = F.linear(F.layer_norm(x[1, 3], (12,)), layer.linear.weight)
    assert torch.allclose(y[1, 3], wanted, atol=1e-6)
