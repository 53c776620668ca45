"""Reductions against loops: apply, masses, positions and restore, and what they have in common."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from drawn import SEEDS, SIZES, features, generator, kept, partition, weights
from hypothesis import given
from hypothesis import strategies as st

from tokred.advance import advance
from tokred.gather import take
from tokred.reduction import Fuse, Keep, Mask, Merge, Mix, Reduction
from tokred.tokens import Grid, Tokens


@given(SIZES, SEEDS, st.booleans())
def test_keep_is_the_loop(shape: tuple[int, int, int], seed: int, sized: bool) -> None:
    b, n, c = shape
    x, index = features(b, n, c, seed), kept(b, n, seed)
    size = weights(b, n, seed) if sized else None
    keep = Keep(index, n)
    y, masses, went = keep.apply(x, size), keep.masses(size), keep.positions()
    assert (masses is None) == (size is None)
    assert went.shape == (b, n)
    assert (keep.n_in, keep.n_out, keep.chosen) == (n, index.shape[1], index)
    for i in range(b):
        for place in range(n):
            where = (index[i] == place).nonzero()
            assert went[i, place] == (int(where[0]) if len(where) else -1)
        for j, place in enumerate(index[i].tolist()):
            assert torch.equal(y[i, j], x[i, place])
            assert size is None or masses is None or masses[i, j] == size[i, place]


@given(SIZES, SEEDS)
def test_a_dropped_place_is_restored_from_the_nearest_kept_one_ties_to_the_earlier(
    shape: tuple[int, int, int], seed: int
) -> None:
    b, n, c = shape
    x, index = features(b, n, c, seed), kept(b, n, seed)
    back = Keep(index, n).restore(take(x, index))
    filled = Keep(index, n).restore(take(x, index), fill=-7.0)
    assert back.shape == filled.shape == x.shape
    for i in range(b):
        places = index[i].tolist()
        for place in range(n):
            nearest = min(places, key=lambda p: (abs(p - place), p))
            assert torch.equal(back[i, place], x[i, nearest])
            expected = x[i, place] if place in places else torch.full((c,), -7.0)
            assert torch.equal(filled[i, place], expected)


@given(SIZES, SEEDS, st.sampled_from(["mass", "mean", "sum", "amax"]), st.booleans(), st.booleans())
def test_merge_is_the_loop(shape: tuple[int, int, int], seed: int, mode: str, sized: bool, weighted: bool) -> None:
    b, n, c = shape
    x = features(b, n, c, seed)
    assign, m = partition(b, n, seed)
    size = 1 + 3 * weights(b, n, seed) if sized else None
    factor = weights(b, n, seed + 5) if weighted and mode == "mass" else None
    merge = Merge(assign, m, mode, factor)
    y, masses = merge.apply(x, size), merge.masses(size)
    back = merge.restore(y)
    assert masses is not None
    assert (merge.n_in, merge.n_out, merge.linear, merge.chosen) == (n, m, mode != "amax", None)
    assert (y.shape, masses.shape, back.shape) == ((b, m, c), (b, m), (b, n, c))
    for i in range(b):
        for target in range(m):
            members = [j for j in range(n) if assign[i, j] == target]
            mass = [
                (1.0 if size is None else float(size[i, j])) * (1.0 if factor is None else float(factor[i, j]))
                for j in members
            ]
            rows = x[i, members]
            if mode == "mass":
                expected = (torch.tensor(mass)[:, None] * rows).sum(0) / sum(mass)
            else:
                expected = {"mean": rows.mean(0), "sum": rows.sum(0), "amax": rows.amax(0)}[mode]
            torch.testing.assert_close(y[i, target], expected, rtol=1e-4, atol=1e-5)
            assert float(masses[i, target]) == pytest.approx(sum(mass), rel=1e-5)
            for j in members:
                assert torch.equal(back[i, j], y[i, target])
    assert torch.equal(merge.positions(), assign)


@given(SIZES, SEEDS, st.booleans())
def test_fuse_is_the_loop(shape: tuple[int, int, int], seed: int, sized: bool) -> None:
    b, n, c = shape
    n += 1
    x, index = features(b, n, c, seed), kept(b, n - 1, seed)
    w = weights(b, n, seed).scatter(1, index, 0.0)
    size = 1 + weights(b, n, seed + 9) if sized else None
    fuse = Fuse(index, w)
    y, masses, went = fuse.apply(x, size), fuse.masses(size), fuse.positions()
    back = fuse.restore(y)
    assert masses is not None
    k = index.shape[1]
    assert (fuse.n_in, fuse.n_out) == (n, k + 1)
    for i in range(b):
        places = index[i].tolist()
        rest = [j for j in range(n) if j not in places]
        fused = sum((float(w[i, j]) * x[i, j] for j in rest), torch.zeros(c))
        torch.testing.assert_close(y[i, k], fused, rtol=1e-4, atol=1e-5)
        mass = sum(1.0 if size is None else float(size[i, j]) for j in rest)
        assert float(masses[i, k]) == pytest.approx(mass, rel=1e-4)
        for j in range(n):
            assert went[i, j] == (places.index(j) if j in places else k)
            assert torch.equal(back[i, j], y[i, went[i, j]])


@given(SIZES, SEEDS, st.booleans())
def test_mix_is_the_loop(shape: tuple[int, int, int], seed: int, sized: bool) -> None:
    b, n, c = shape
    x, m = features(b, n, c, seed), max(1, n // 2)
    matrix = torch.rand(b, m, n, generator=generator(seed)) + 0.01
    size = 1 + weights(b, n, seed) if sized else None
    mix = Mix(matrix)
    y, masses, went = mix.apply(x, size), mix.masses(size), mix.positions()
    back = mix.restore(y)
    assert masses is not None
    assert (mix.n_in, mix.n_out, masses.shape, back.shape) == (n, m, (b, m), (b, n, c))
    for i in range(b):
        for j in range(n):
            column = matrix[i, :, j]
            assert went[i, j] == int(column.argmax())
            expected = sum((float(column[t] / column.sum()) * y[i, t] for t in range(m)), torch.zeros(c))
            torch.testing.assert_close(back[i, j], expected, rtol=1e-4, atol=1e-5)
        for target in range(m):
            expected = sum((float(matrix[i, target, j]) * x[i, j] for j in range(n)), torch.zeros(c))
            torch.testing.assert_close(y[i, target], expected, rtol=1e-4, atol=1e-5)
            mass = sum(
                float(matrix[i, target, j] / matrix[i, :, j].sum()) * (1.0 if size is None else float(size[i, j]))
                for j in range(n)
            )
            assert float(masses[i, target]) == pytest.approx(mass, rel=1e-4)


def test_mix_restores_with_its_own_weights_where_it_has_them() -> None:
    back = torch.tensor([[[1.0], [0.0], [2.0]]])
    mix = Mix(torch.ones(1, 1, 3) / 3, back)
    assert mix.restore(torch.tensor([[[5.0]]])).flatten().tolist() == [5.0, 0.0, 10.0]


def drawn_reductions() -> list[Reduction]:
    index, ones = torch.tensor([[0, 2]]), torch.ones(1, 3)
    return [
        *(Keep(index, 3), Merge(torch.zeros(1, 3, dtype=torch.int64), 1), Fuse(index, ones)),
        *(Mix(torch.ones(1, 2, 3)), Mask(ones)),
    ]


@pytest.mark.parametrize("reduction", drawn_reductions(), ids=lambda r: type(r).__name__)
def test_a_decision_cannot_be_changed_and_sets_nothing_aside(reduction: Reduction) -> None:
    with pytest.raises(FrozenInstanceError, match="groups"):
        reduction.groups = 2
    after = advance(Tokens(torch.ones(1, 3, 2), Grid(1, 1, 3)), reduction)
    assert after.aside is None
    assert (reduction.grid, reduction.sets_aside, reduction.brings_back) == (None, False, False)


@pytest.mark.parametrize("missing", ["apply", "masses", "positions", "restore"])
def test_a_reduction_says_all_four_things(missing: str) -> None:
    own = {name: lambda self: None for name in ("apply", "masses", "positions", "restore") if name != missing}
    with pytest.raises(TypeError, match=missing):
        type("Half", (Reduction,), own)()


def test_a_mask_leaves_tokens_and_masses_where_they_are() -> None:
    x, size = features(2, 4, 3, 0), weights(2, 4, 0)
    mask = Mask((size > 0.5).float(), groups=2)
    assert (mask.n_in, mask.n_out, mask.groups) == (4, 4, 2)
    assert mask.apply(x) is x
    assert mask.masses(size) is size
    assert mask.restore(x) is x
    assert mask.positions().tolist() == [[0, 1, 2, 3]] * 2


def test_gradients_reach_the_weights_of_a_fused_token() -> None:
    w = torch.tensor([[0.0, 0.3, 0.7]], requires_grad=True)
    x = features(1, 3, 2, 0)
    Fuse(torch.tensor([[0]]), w).apply(x)[:, -1].sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, x.sum(-1))


def test_weights_of_zero_that_meet_give_zero_and_not_nan() -> None:
    merge = Merge(torch.tensor([[0, 0, 1]]), 2, weight=torch.tensor([[0.0, 0.0, 2.0]]))
    y = merge.apply(torch.ones(1, 3, 2))
    assert y.tolist() == [[[0.0, 0.0], [1.0, 1.0]]]


@given(SIZES, SEEDS, st.booleans())
def test_a_weighted_merge_is_the_loop_and_a_token_alone_passes_bit_for_bit(
    shape: tuple[int, int, int], seed: int, massive: bool
) -> None:
    b, n, c = shape
    assign, m = partition(b, n, seed)
    x, weight = features(b, n, c, seed), weights(b, n, seed)
    size = weights(b, n, seed + 7) if massive else None
    merge = Merge(assign, m, weight=weight)
    y, masses = merge.apply(x, size), merge.masses(size)
    assert masses is not None
    share = weight if size is None else weight * size
    for i in range(b):
        for place in range(m):
            members = (assign[i] == place).nonzero()[:, 0]
            total = share[i, members].double().sum()
            expected = (x[i, members].double() * share[i, members].double()[:, None]).sum(0) / total
            torch.testing.assert_close(y[i, place].double(), expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(masses[i, place].double(), total, rtol=1e-5, atol=1e-6)
            if len(members) == 1:
                assert torch.equal(y[i, place], x[i, members[0]])


def test_float64_features_are_averaged_in_float64() -> None:
    x = torch.tensor([[[1.0], [0.0], [0.0]]], dtype=torch.float64)
    merge = Merge(torch.zeros(1, 3, dtype=torch.int64), 1)
    assert merge.apply(x, torch.ones(1, 3)).item() == 1 / 3


@pytest.mark.parametrize("mode", ["mean", "sum", "amax"])
def test_a_weight_without_masses_to_scale_is_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=f"weight scales masses, which mode = '{mode}' does not read: allowed is mass"):
        Merge(torch.zeros(1, 2, dtype=torch.int64), 1, mode, weight=torch.ones(1, 2))


def test_huge_masses_and_float16_features_do_not_overflow_in_the_sum() -> None:
    x = torch.full((1, 64, 1), 60000.0, dtype=torch.float16)
    merge = Merge(torch.zeros(1, 64, dtype=torch.int64), 1)
    for size in (None, torch.full((1, 64), 100.0)):
        assert merge.apply(x, size).item() == 60000.0


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode = 'median' is not one of mass, mean, sum, amax"):
        Merge(torch.zeros(1, 2, dtype=torch.int64), 1, "median")


def test_empty_batches_pass() -> None:
    empty = torch.zeros(0, 4, dtype=torch.int64)
    assert Keep(empty[:, :2], 4).apply(torch.zeros(0, 4, 3)).shape == (0, 2, 3)
    assert Merge(empty, 2).apply(torch.zeros(0, 4, 3)).shape == (0, 2, 3)
    assert math.prod(Keep(empty[:, :2], 4).restore(torch.zeros(0, 2, 3)).shape) == 0
