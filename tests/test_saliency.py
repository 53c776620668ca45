"""Attention statistics against the dense map, computed with loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.saliency import activation_map, attention_map, attention_row, row_statistics

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 4))  # B, H, N, d


def qk(shape: tuple[int, int, int, int], seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=g), 2 * torch.randn(shape, generator=g)


def dense(q: Tensor, k: Tensor, scale: float, log_size: Tensor | None) -> Tensor:
    """softmax(scale q k^T + log s), one row at a time."""
    b, h, n, _ = q.shape
    out = torch.zeros(b, h, n, n, dtype=torch.float64)
    for i in range(b):
        for head in range(h):
            for row in range(n):
                logits = [
                    scale * float(q[i, head, row].double() @ k[i, head, j].double())
                    + (0.0 if log_size is None else float(log_size[i, j]))
                    for j in range(n)
                ]
                top = max(logits)
                e = [math.exp(v - top) for v in logits]
                out[i, head, row] = torch.tensor([v / sum(e) for v in e], dtype=torch.float64)
    return out


def sizes(b: int, n: int, seed: int) -> Tensor:
    return torch.randint(1, 9, (b, n), generator=torch.Generator().manual_seed(seed)).float()


@given(SHAPES, st.integers(0, 1000), st.booleans(), st.integers(1, 4))
def test_streamed_statistics_equal_those_of_the_dense_map(
    shape: tuple[int, int, int, int], seed: int, massive: bool, rows: int
) -> None:
    b, _, n, d = shape
    q, k = qk(shape, seed)
    mass = sizes(b, n, seed) if massive else None
    log_size = None if mass is None else mass.log()
    full = dense(q, k, d**-0.5, log_size)
    mean = full.mean(1)
    weight = torch.ones(b, n, dtype=torch.float64) if mass is None else mass.double()
    received = (mean * weight[:, :, None]).sum(1) / weight.sum(1, keepdim=True)
    found = row_statistics(q, k, d**-0.5, entropy=True, log_size=log_size, row_mass=mass, rows=rows)
    assert found.received is not None
    assert found.negative_entropy is not None
    torch.testing.assert_close(found.received.double(), received, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.received.sum(1), torch.ones(b), rtol=1e-5, atol=1e-5)
    entropy = torch.special.xlogy(mean, mean).sum(-1)
    torch.testing.assert_close(found.negative_entropy.double(), entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention_map(q, k, d**-0.5, log_size).double(), full, rtol=1e-4, atol=1e-6)


@given(SHAPES, st.integers(0, 1000), st.booleans())
def test_one_row_equals_that_row_of_the_dense_map(shape: tuple[int, int, int, int], seed: int, massive: bool) -> None:
    b, _, n, d = shape
    q, k = qk(shape, seed)
    log_size = sizes(b, n, seed).log() if massive else None
    row = attention_row(q[:, :, 0], k, d**-0.5, log_size)
    torch.testing.assert_close(row.double(), dense(q, k, d**-0.5, log_size)[:, :, 0].mean(1), rtol=1e-4, atol=1e-6)


def test_only_what_is_asked_for_is_computed() -> None:
    q, k = qk((1, 2, 5, 3), 0)
    assert row_statistics(q, k, 1.0).negative_entropy is None
    assert row_statistics(q, k, 1.0, received=False, entropy=True).received is None


def test_gradients_flow_through_a_row_and_not_through_streamed_statistics() -> None:
    q, k = qk((1, 2, 5, 3), 0)
    k.requires_grad_()
    attention_row(q[:, :, 0], k, 1.0)[0, 1].backward()
    assert k.grad is not None
    assert bool(k.grad.any())
    received = row_statistics(q, k, 1.0).received
    assert received is not None
    assert not received.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_narrow_features_are_computed_in_float32(dtype: torch.dtype) -> None:
    q, k = (part.to(dtype) for part in qk((2, 2, 40, 8), 1))
    wide = row_statistics(q.float(), k.float(), 0.3, entropy=True)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            narrow = row_statistics(q, k, 0.3, entropy=True)
            row, full = attention_row(q[:, :, 0], k, 0.3), attention_map(q, k, 0.3)
        assert narrow.received is not None
        assert narrow.negative_entropy is not None
        assert torch.equal(narrow.received, wide.received)  # type: ignore[arg-type]
        assert torch.equal(narrow.negative_entropy, wide.negative_entropy)  # type: ignore[arg-type]
        assert torch.equal(row, attention_row(q[:, :, 0].float(), k.float(), 0.3))
        assert torch.equal(full, attention_map(q.float(), k.float(), 0.3))


def test_float64_stays_float64() -> None:
    q, k = (part.double() for part in qk((1, 1, 4, 2), 0))
    received = row_statistics(q, k, 1.0).received
    assert received is not None
    assert received.dtype == attention_row(q[:, :, 0], k, 1.0).dtype == torch.float64


@given(SHAPES, st.integers(0, 1000))
def test_sharpness_is_the_divergence_from_uniform_attention(shape: tuple[int, int, int, int], seed: int) -> None:
    q, k = qk(shape, seed)
    found = row_statistics(q, k, 0.5, entropy=True, rows=2)
    assert found.sharpness is not None
    mean = dense(q, k, 0.5, None).mean(1)
    divergence = (mean * (mean * shape[2]).log()).sum(-1)
    torch.testing.assert_close(found.sharpness.double(), divergence, rtol=1e-5, atol=1e-6)


def test_sharpness_keeps_the_small_differences_that_the_entropy_rounds_away() -> None:
    """Nearly uniform attention over 512 tokens: divergences of about 1e-4 beside entropies of 6.2."""
    q, k = qk((1, 3, 512, 8), 3)
    found = row_statistics(q, k, 0.005, entropy=True)
    exact = row_statistics(q.double(), k.double(), 0.005, entropy=True)
    assert found.sharpness is not None
    assert exact.sharpness is not None
    assert found.negative_entropy is not None
    span = exact.sharpness.amax() - exact.sharpness.amin()
    assert span < 5e-3
    mean = attention_map(q, k, 0.005).mean(1)
    entropy = torch.special.xlogy(mean, mean).sum(-1)
    off, off_entropy = (
        ((a - a.mean()).double() - (exact.sharpness - exact.sharpness.mean())).abs().amax() / span
        for a in (found.sharpness, entropy)
    )
    assert off < 1e-3
    assert off < off_entropy / 3


def test_uniform_attention_has_sharpness_zero() -> None:
    q, k = qk((1, 2, 300, 4), 0)
    found = row_statistics(q, torch.ones_like(k), 1.0, entropy=True).sharpness
    assert found is not None
    assert float(found.abs().amax()) < 4 * torch.finfo(torch.float32).eps


def test_a_saturated_row_has_entropy_zero_and_not_nan() -> None:
    q = torch.tensor([[[[1000.0], [0.0]]]])
    k = torch.tensor([[[[1.0], [0.0]]]])
    negative = row_statistics(q, k, 1.0, entropy=True).negative_entropy
    assert negative is not None
    assert negative[0].tolist() == pytest.approx([0.0, -math.log(2)])


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_the_activation_map_is_the_loop_and_does_not_depend_on_the_order_of_channels(
    groups: int, n: int, c: int, seed: int
) -> None:
    x = torch.randn(2, groups, n, c, generator=torch.Generator().manual_seed(seed))
    a = activation_map(x)
    for i in range(2):
        for group in range(groups):
            sums = [float(x[i, group, j].abs().double().sum()) for j in range(n)]
            low, high = min(sums), max(sums)
            expected = [0.0 if high == low else (s - low) / (high - low) for s in sums]
            assert a[i, group].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(activation_map(x.flip(-1)), a, rtol=1e-5, atol=1e-6)


def test_a_constant_activation_map_is_zero() -> None:
    assert activation_map(torch.full((1, 2, 3, 4), -2.0)).tolist() == [[[0.0] * 3] * 2]


def test_the_activation_map_of_float16_does_not_overflow() -> None:
    x = torch.full((1, 2, 64), 6e4, dtype=torch.float16)
    x[0, 0] = 0
    assert activation_map(x).tolist() == [[0.0, 1.0]]
