"""Attention under a keep mask, against loops, and inside every family of hosts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tokred.backbones import adapter_for
from tokred.backbones.attention import attend_fused
from tokred.backbones.masked import LEAK, attend_masked, masked_softmax
from tokred.testing import default_backbones

VIDEO, IMAGE, *_ = default_backbones()[:2]


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 999))
def test_weights_are_those_of_loops(n: int, heads: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, heads, n, n, generator=g, dtype=torch.float64) * 3
    policy = (torch.rand(2, n, generator=g) < 0.5).double()
    got = masked_softmax(logits, policy)
    for b in range(2):
        for h in range(heads):
            for i in range(n):
                row = logits[b, h, i]
                seen = [float((row[j] - row.max()).exp()) * (1.0 if i == j else float(policy[b, j])) for j in range(n)]
                wanted = [(s + LEAK / n) / (sum(seen) + LEAK) for s in seen]
                assert torch.allclose(got[b, h, i], torch.tensor(wanted, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(got.sum(-1), torch.ones(1, dtype=torch.float64), atol=1e-12)


def test_without_a_mask_it_is_plain_attention_up_to_the_leak() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 5, generator=g) for _ in range(3))
    log_size = torch.rand(2, 7, generator=g)
    for bias in (None, log_size):
        masked = attend_masked(q, k, v, 0.4, torch.ones(2, 7), bias)
        assert torch.allclose(masked, attend_fused(q, k, v, 0.4, bias), atol=1e-5)


def test_masked_keys_are_seen_by_nobody_but_themselves() -> None:
    g = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 2, 6, 4, generator=g) for _ in range(3))
    policy = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    other = v.clone()
    other[:, :, 1] += 100.0
    moved = (attend_masked(q, k, other, 0.5, policy) - attend_masked(q, k, v, 0.5, policy)).abs().amax((0, 1, 3))
    assert float(moved[1]) > 1.0
    assert float(moved[[0, 2, 3, 4, 5]].max()) < 100 * LEAK


def test_gradients_reach_the_mask_and_half_precision_stays_half() -> None:
    g = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(1, 2, 6, 4, generator=g) for _ in range(3))
    policy = torch.ones(1, 6, requires_grad=True)
    attend_masked(q, k, v, 0.5, policy).square().sum().backward()
    assert policy.grad is not None
    assert bool(policy.grad.all())
    half = attend_masked(q.half(), k.half(), v.half(), 0.5, torch.ones(1, 6))
    assert half.dtype == torch.float16


def blocks_out(model: nn.Module, pixels: Tensor, policy: Tensor | None, change: Tensor | None = None) -> Tensor:
    """One block and the head of a host under a mask; ``change`` is added to the features before it."""
    adapter = adapter_for(model)
    tokens = adapter.embed(model, pixels, None)
    x = tokens.x if change is None else tokens.x + change
    tokens = replace(tokens, x=x, policy=policy)
    block = adapter.blocks(model)[0]
    tokens = tokens.with_x(adapter.feed(block, adapter.attend(block, tokens, None).x).x)
    features = adapter.features(model, tokens, "mean")
    return adapter.classify(model, features, tokens, "mean")


@pytest.mark.parametrize("backbone", [VIDEO, IMAGE], ids=["video", "image"])
@torch.no_grad()
def test_hosts_do_not_see_masked_tokens(backbone: object) -> None:
    model, pixels = backbone.build()  # type: ignore[attr-defined]
    count = adapter_for(model).embed(model, pixels, None).count
    policy = torch.ones(len(pixels), count)
    policy[:, -5:] = 0
    change = torch.zeros_like(adapter_for(model).embed(model, pixels, None).x)
    change[:, -5:] = 3 * torch.randn(change[:, -5:].shape, generator=torch.Generator().manual_seed(0))
    plain = blocks_out(model, pixels, None)
    assert torch.allclose(blocks_out(model, pixels, torch.ones(len(pixels), count)), plain, atol=1e-4)
    masked = blocks_out(model, pixels, policy)
    assert torch.allclose(blocks_out(model, pixels, policy, change), masked, atol=1e-4)
    assert not torch.allclose(blocks_out(model, pixels, None, change), plain, atol=1e-3)
    assert bool(blocks_out(model, pixels, torch.zeros(len(pixels), count)).isfinite().all())


@given(st.integers(1, 9), st.booleans(), st.integers(0, 999))
def test_the_fast_form_has_the_values_and_gradients_of_the_map(n: int, biased: bool, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(2, 3, n, 4, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(3))
    policy = (torch.rand(2, n, generator=g) < 0.6).double().requires_grad_()
    log_size = torch.rand(2, n, generator=g, dtype=torch.float64) if biased else None
    logits = q @ k.transpose(-1, -2) * 0.7
    wanted = masked_softmax(logits if log_size is None else logits + log_size[:, None, None], policy) @ v
    got = attend_masked(q, k, v, 0.7, policy, log_size)
    assert torch.allclose(got, wanted, atol=1e-12)
    cotangent = torch.randn(got.shape, generator=g, dtype=torch.float64)
    ours = torch.autograd.grad((got * cotangent).sum(), (q, k, v, policy))
    theirs = torch.autograd.grad((wanted * cotangent).sum(), (q, k, v, policy))
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-9)


def test_dropout_falls_on_the_weights() -> None:
    v = torch.eye(4)[None, None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        out = attend_masked(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), v, 1.0, torch.ones(1, 4), dropout=0.5)
    assert {round(float(x), 3) for x in out.flatten()} == {0.0, 0.5}
