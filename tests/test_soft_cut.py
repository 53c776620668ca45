"""Mixtures of frames and of squares against the matrices that they stand for."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.anchors import Anchors
from tokred.reduction import Keep, Mix, Reduction
from tokred.soft_cut import Chained, MixFrames, MixSquares
from tokred.tokens import Grid


def shares(*shape: int, seed: int) -> Tensor:
    """Weights that sum to one, some of them zero."""
    g = torch.Generator().manual_seed(seed)
    weights = torch.rand(*shape, generator=g) * (torch.rand(*shape, generator=g) < 0.6)
    weights[..., 0] += 0.1
    return weights / weights.sum(-1, keepdim=True)


def features(n: int, seed: int) -> Tensor:
    return torch.randn(2, n, 3, generator=torch.Generator().manual_seed(seed))


def matrix_of_frames(cut: MixFrames) -> Tensor:
    b, k, t = cut.weights.shape
    out = torch.zeros(b, cut.n_out, cut.n_in)
    out[:, range(cut.prefix), range(cut.prefix)] = 1
    for j in range(k):
        for i in range(t):
            for s in range(cut.size):
                out[:, cut.prefix + j * cut.size + s, cut.prefix + i * cut.size + s] = cut.weights[:, j, i]
    return out


def matrix_of_squares(cut: MixSquares) -> Tensor:
    b, t, _ = cut.weights.shape
    size = cut.anchors.h * cut.anchors.w
    out = torch.zeros(b, cut.n_out, cut.n_in)
    out[:, range(cut.prefix), range(cut.prefix)] = 1
    for i in range(t):
        for q, window in enumerate(cut.anchors.places().tolist()):
            for s, place in enumerate(window):
                row = cut.prefix + i * cut.anchors.area + s
                out[:, row, cut.prefix + i * size + place] += cut.weights[:, i, q]
    return out


def agrees(cut: Reduction, matrix: Tensor, seed: int) -> None:
    x = features(cut.n_in, seed)
    size = torch.rand(2, cut.n_in, generator=torch.Generator().manual_seed(seed + 1)) + 0.5
    torch.testing.assert_close(cut.apply(x, size), matrix @ x)
    assert cut.masses(None) is None
    masses = cut.masses(size)
    assert masses is not None
    torch.testing.assert_close(masses, (matrix @ size[..., None])[..., 0])
    y = features(cut.n_out, seed + 2)
    back = cut.restore(y)
    expected = Mix(matrix).restore(y)
    reached = matrix.sum(1) > 0
    torch.testing.assert_close(back[reached], expected[reached], rtol=1e-4, atol=1e-5)
    assert bool((cut.restore(y, fill=7.0)[~reached] == 7.0).all())
    went = cut.positions()
    assert bool((went[~reached] == -1).all())


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(0, 999)
)
def test_frames_are_a_matrix(k: int, t: int, h: int, w: int, prefix: int, seed: int) -> None:
    cut = MixFrames(shares(2, min(k, t), t, seed=seed), (h, w), prefix)
    agrees(cut, matrix_of_frames(cut), seed)
    assert (cut.groups, cut.grid) == (min(k, t), Grid(min(k, t), h, w))
    kept = cut.positions() >= 0
    best = matrix_of_frames(cut).argmax(1)
    assert torch.equal(cut.positions()[kept], best[kept])


@given(
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2), st.integers(0, 999)
)
def test_squares_are_a_matrix(t: int, h: int, w: int, side: int, prefix: int, seed: int) -> None:
    anchors = Anchors(h, w, min(side, h), min(side, w))
    cut = MixSquares(shares(2, t, anchors.count, seed=seed), anchors, prefix)
    agrees(cut, matrix_of_squares(cut), seed)
    assert (cut.groups, cut.grid) == (t, Grid(t, anchors.rows, anchors.columns))


def test_a_hard_mixture_is_a_subset() -> None:
    anchors = Anchors(4, 4, 3, 3)
    hard = torch.zeros(2, 2, 4)
    hard[:, 0, 3] = hard[:, 1, 0] = 1
    cut = MixSquares(hard, anchors, prefix=1)
    index = torch.cat([torch.tensor([0]), anchors.places()[3] + 1, anchors.places()[0] + 17])
    keep = Keep(index.expand(2, -1), cut.n_in, 2)
    x = features(cut.n_in, 0)
    assert torch.equal(cut.apply(x), keep.apply(x))
    assert torch.equal(cut.positions(), keep.positions())


def test_a_chain_is_both_in_turn() -> None:
    first = MixFrames(shares(2, 2, 3, seed=1), (4, 4), 1)
    second = MixSquares(shares(2, 2, 4, seed=2), Anchors(4, 4, 3, 3), 1)
    chain = Chained(first, second)
    matrix = matrix_of_squares(second) @ matrix_of_frames(first)
    x, size = features(chain.n_in, 3), torch.rand(2, chain.n_in) + 0.5
    torch.testing.assert_close(chain.apply(x), matrix @ x)
    torch.testing.assert_close(chain.masses(size), (matrix @ size[..., None])[..., 0])
    assert (chain.n_in, chain.n_out, chain.groups, chain.grid) == (49, 19, 2, Grid(2, 3, 3))
    between, last = first.positions(), second.positions()
    for b in range(2):
        for i in range(chain.n_in):
            j = int(between[b, i])
            assert int(chain.positions()[b, i]) == (-1 if j < 0 else int(last[b, j]))
    y = features(chain.n_out, 4)
    assert torch.equal(chain.restore(y), first.restore(second.restore(y)))


def test_gradients_reach_the_weights_and_the_features() -> None:
    weights = shares(2, 2, 3, seed=1).requires_grad_()
    x = features(12, 2).requires_grad_()
    MixFrames(weights, (2, 2)).apply(x).square().sum().backward()
    assert weights.grad is not None
    assert bool(weights.grad.any())
    assert x.grad is not None
    assert bool(x.grad.any())
