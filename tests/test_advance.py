"""What all reductions have in common: mass, traces, dtypes, gradients, moving tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from drawn import SEEDS, features, generator, kept, partition, weights
from hypothesis import given
from hypothesis import strategies as st

from tokred.advance import advance, follow
from tokred.reduction import Fuse, Keep, Merge, Mix, Reduction
from tokred.tokens import Grid, Tokens


def all_kinds(b: int, n: int, seed: int) -> list[Reduction]:
    assign, m = partition(b, n, seed)
    index = kept(b, n - 1, seed)
    w = weights(b, n, seed).scatter(1, index, 0.0)
    matrix = torch.rand(b, m, n, generator=generator(seed))
    return [Keep(kept(b, n, seed), n), Merge(assign, m), Fuse(index, w), Mix(matrix)]


@given(st.integers(1, 3), st.integers(2, 9), SEEDS, st.booleans())
def test_mass_is_kept_or_dropped_and_nothing_else(b: int, n: int, seed: int, sized: bool) -> None:
    size = 1 + weights(b, n, seed) if sized else None
    total = torch.full((b,), float(n)) if size is None else size.sum(1)
    for reduction in all_kinds(b, n, seed):
        dropped = ((torch.ones(b, n) if size is None else size) * (reduction.positions() < 0)).sum(1)
        after = reduction.masses(size)
        left = torch.full((b,), float(reduction.n_out)) if after is None else after.sum(1)
        torch.testing.assert_close(left + dropped, total, rtol=1e-5, atol=1e-4)
        assert after is None or after.dtype == torch.float32


@given(st.integers(1, 3), st.integers(3, 9), SEEDS)
def test_traces_compose(b: int, n: int, seed: int) -> None:
    """Following patches through two steps is following them through the first, then the second."""
    prefix = 1
    x = features(b, n, 3, seed)
    source = torch.arange(prefix, n).expand(b, n - prefix)
    tokens = Tokens(x, Grid(1, 1, n - prefix), prefix, source=source)
    for first in all_kinds(b, n, seed):
        between = advance(tokens, first)
        if between.count < 2:
            continue
        for second in all_kinds(b, between.count, seed + 1):
            after = advance(between, second)
            assert after.source is not None
            for i in range(b):
                for patch in range(n - prefix):
                    place = int(first.positions()[i, prefix + patch])
                    expected = -1 if place < 0 else int(second.positions()[i, place])
                    assert after.source[i, patch] == expected


@given(st.integers(1, 3), st.integers(2, 9), SEEDS, st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
def test_results_have_the_dtype_of_the_features(b: int, n: int, seed: int, dtype: torch.dtype) -> None:
    x, size = features(b, n, 3, seed).to(dtype), 1 + weights(b, n, seed)
    for reduction in all_kinds(b, n, seed):
        y = reduction.apply(x, size)
        assert y.dtype == dtype
        assert reduction.restore(y).dtype == dtype
        wide = reduction.apply(x.double(), size)
        coarse = 2e-2 if dtype == torch.bfloat16 else 4e-3
        torch.testing.assert_close(y.double(), wide, rtol=coarse, atol=coarse)


@pytest.mark.parametrize("kind", [Merge, Fuse, Mix])
def test_autocast_does_not_narrow_a_step(kind: type) -> None:
    x = features(2, 8, 4, 0)
    (reduction,) = (r for r in all_kinds(2, 8, 3) if isinstance(r, kind))
    exact = reduction.apply(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = reduction.apply(x)
        assert torch.equal(y, exact)
        assert torch.equal(reduction.restore(y), reduction.restore(exact))
        masses = reduction.masses(1 + weights(2, 8, 0))
    assert masses is not None
    torch.testing.assert_close(masses, reduction.masses(1 + weights(2, 8, 0)), rtol=1e-7, atol=0)


@given(st.integers(1, 2), st.integers(2, 6), SEEDS)
def test_gradients_are_those_of_finite_differences(b: int, n: int, seed: int) -> None:
    x = features(b, n, 2, seed).double().requires_grad_()
    size = 1 + weights(b, n, seed)
    for reduction in all_kinds(b, n, seed):
        assert torch.autograd.gradcheck(lambda z, r=reduction: r.apply(z, size), (x,), fast_mode=True, atol=1e-5)


def test_a_reduction_for_another_number_of_tokens_is_refused() -> None:
    tokens = Tokens(torch.zeros(1, 5, 2), Grid(1, 1, 5))
    with pytest.raises(ValueError, match="made for 4 tokens, there are 5"):
        advance(tokens, Keep(torch.tensor([[0]]), 4))


def test_advance_moves_features_masses_groups_and_seed_together() -> None:
    known: dict[str, Any] = {"groups": 2, "sample_seed": torch.tensor([3])}
    tokens = Tokens(features(1, 6, 2, 0), Grid(2, 1, 3), size=torch.arange(1.0, 7.0)[None], **known)
    after = advance(tokens, Keep(torch.tensor([[0, 2, 3, 5]]), 6, groups=2))
    assert after.groups == 2
    assert after.size is not None
    assert after.size.tolist() == [[1.0, 3.0, 4.0, 6.0]]
    assert after.sample_seed is tokens.sample_seed
    assert advance(tokens, Keep(torch.tensor([[0, 1]]), 6)).groups is None


def test_follow_takes_features_through_several_steps_with_the_masses_of_each() -> None:
    x = torch.tensor([[[1.0], [2.0], [4.0]]])
    first = Merge(torch.tensor([[0, 0, 1]]), 2)
    second = Merge(torch.tensor([[0, 0]]), 1)
    size = first.masses(None)
    y = follow(x, [(first, None), (second, size)])
    assert y.item() == pytest.approx(7 / 3)  # the mean over all three, which needs the masses of the first step
    assert follow(x, []) is x
