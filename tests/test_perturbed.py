"""Perturbed top-k against loops over samples, and its two gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.perturbed import min_max, normal_draws, perturbed_top


def drawn(rows: int, samples: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = torch.rand(rows, d, generator=g, dtype=torch.float64)
    return scores, torch.randn(rows, samples, d, generator=g, dtype=torch.float64)


def chosen(noisy: list[float], k: int) -> list[int]:
    return sorted(sorted(range(len(noisy)), key=lambda i: -noisy[i])[:k])


@given(
    st.integers(1, 3), st.integers(1, 20), st.integers(1, 7), st.floats(0, 0.5), st.sampled_from([1, 3]), st.integers(0)
)
def test_indicators_and_both_gradients_by_loops(
    rows: int, samples: int, d: int, sigma: float, k: int, seed: int
) -> None:
    k = min(k, d)
    scores, noise = drawn(rows, samples, d, seed % 2**40)
    grad = torch.randn(rows, k, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    indicator = torch.zeros(rows, k, d, dtype=torch.float64)
    diagonal, full = torch.zeros_like(scores), torch.zeros_like(scores)
    for r in range(rows):
        plain = chosen(scores[r].tolist(), k)
        for n in range(samples):
            best = chosen((scores[r] + sigma * noise[r, n]).tolist(), k)
            loss = sum(float(grad[r, j, i]) for j, i in enumerate(best))
            loss -= sum(float(grad[r, j, i]) for j, i in enumerate(plain))
            for j, i in enumerate(best):
                indicator[r, j, i] += 1 / samples
                if sigma > 1e-20:
                    diagonal[r, i] += grad[r, j, i] * noise[r, n, i] / (samples * sigma)
            if sigma > 1e-20:
                full[r] += loss * noise[r, n] / (samples * sigma)
    for jacobian, expected in (("diagonal", diagonal), ("full", full)):
        x = scores.clone().requires_grad_()
        out = perturbed_top(x, k, sigma, noise, jacobian)
        torch.testing.assert_close(out, indicator)
        (slope,) = torch.autograd.grad(out, x, grad)
        torch.testing.assert_close(slope, expected, rtol=1e-7, atol=1e-7 * float(1 + expected.abs().max()))


def test_the_full_gradient_is_that_of_the_expectation_and_the_diagonal_is_not() -> None:
    """k = 1 of 2: P(first) = Phi((a - b) / (sigma sqrt 2)), so its slope is known."""
    sigma, gap = 0.3, 0.2
    x = torch.tensor([[gap, 0.0]], dtype=torch.float64, requires_grad=True)
    noise = drawn(1, 200_000, 2, 0)[1]
    slope = math.exp(-((gap / (sigma * math.sqrt(2))) ** 2) / 2) / (math.sqrt(2 * math.pi) * sigma * math.sqrt(2))
    found = {}
    for jacobian in ("diagonal", "full"):
        out = perturbed_top(x, 1, sigma, noise, jacobian)
        (found[jacobian],) = torch.autograd.grad(out[0, 0, 0], x)
    torch.testing.assert_close(found["full"], torch.tensor([[slope, -slope]], dtype=torch.float64), rtol=0.02, atol=0)
    assert float(found["diagonal"][0, 1]) == 0.0


def test_without_noise_the_choice_is_hard_and_the_gradient_zero() -> None:
    x = torch.tensor([[0.1, 0.9, 0.5, 0.9]], requires_grad=True)
    out = perturbed_top(x, 2, 0.0, torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0)))
    assert out.tolist() == [[[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]]
    (slope,) = torch.autograd.grad(out.sum() + (out * out).sum(), x)
    assert not slope.any()


def test_ties_go_to_the_earlier() -> None:
    out = perturbed_top(torch.zeros(1, 5), 2, 0.0, torch.zeros(1, 3, 5))
    assert out.argmax(-1).tolist() == [[0, 1]]


def test_draws_are_normal_and_follow_sample_and_salt_alone() -> None:
    seeds = torch.tensor([5, -17, 2**40])
    draws = normal_draws(seeds, 4, 500, 9, 3, 1)
    assert draws.shape == (12, 500, 9)
    assert abs(float(draws.mean())) < 0.01
    assert abs(float(draws.std()) - 1) < 0.01
    assert 3.5 < float(draws.abs().max()) < 6.5
    assert torch.equal(draws[4:8], normal_draws(seeds[1:2], 4, 500, 9, 3, 1))
    assert not torch.equal(draws, normal_draws(seeds, 4, 500, 9, 4, 1))


def test_min_max_lies_between_zero_and_one_and_a_constant_row_is_zero() -> None:
    x = torch.tensor([[2.0, -1.0, 0.5], [7.0, 7.0, 7.0]], requires_grad=True)
    out = min_max(x)
    torch.testing.assert_close(out, torch.tensor([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]), rtol=1e-5, atol=1e-5)
    (slope,) = torch.autograd.grad(out[0, 2], x)
    torch.testing.assert_close(slope[0], torch.tensor([-1 / 6, -1 / 6, 1 / 3]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, z: perturbed_top(x, 0, 0.1, z), r"k = 0 is not in 1..3"),
        (lambda x, z: perturbed_top(x, 4, 0.1, z), r"k = 4 is not in 1..3"),
        (lambda x, z: perturbed_top(x, 1, 0.1, z, "true"), r"jacobian = 'true' is not one of diagonal, full"),
    ],
)
def test_impossible_choices_are_refused(call: Callable[[Tensor, Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 3), torch.zeros(1, 2, 3))
