"""Bipartite matching against loops, and noise that depends on nothing but its arguments."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tokred import matching
from tokred.matching import best_match, match_every_kth, match_halves, noise, unit


def metric(b: int, n: int, seed: int, d: int = 5) -> Tensor:
    return torch.randn(b, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def tome_by_loops(rows: Tensor, r: int, prefix: int) -> list[list[int]]:
    """ToMe's merge of one sample as a list of output tokens, each the list of its input tokens.

    Even positions propose to odd ones; the r best proposals merge; tokens before ``prefix`` take no part.
    """
    n = len(rows)
    even = list(range(0, n, 2))
    odd = list(range(1, n, 2))
    best: dict[int, tuple[float, int]] = {}
    for i in even:
        if i >= prefix:
            partners = [j for j in odd if j >= prefix]
            best[i] = max((cosine(rows[i], rows[j]), -j) for j in partners)
    ranked = sorted(best, key=lambda i: (-best[i][0], i))
    merged, unmerged = ranked[:r], ranked[r:]
    if prefix:
        unmerged = sorted(unmerged)
    groups = {j: [j] for j in odd}
    for i in merged:
        groups[-best[i][1]].append(i)
    front = [[i] for i in range(prefix)]
    return front + [[i] for i in unmerged] + [groups[j] for j in odd if j >= prefix]


@given(st.integers(1, 2), st.integers(2, 14), st.integers(0, 3), st.floats(0, 1), st.integers(0, 10_000))
def test_matching_halves_is_tome_by_loops(b: int, n: int, prefix: int, share: float, seed: int) -> None:
    assume(n - prefix >= 2)
    r = round(share * ((n - prefix) // 2))
    keys = metric(b, n, seed)
    found = match_halves(keys, r, prefix)
    assert found.n_out == n - r
    for i in range(b):
        members = [[] for _ in range(n - r)]  # type: list[list[int]]
        for place, target in enumerate(found.assign[i].tolist()):
            members[target].append(place)
        expected = tome_by_loops(keys[i], r, prefix)
        assert [sorted(group) for group in members] == [sorted(group) for group in expected]


@pytest.mark.parametrize("prefix", [1, 2, 4, 5])
@pytest.mark.parametrize("in_position", [False, True])
def test_class_tokens_and_registers_stay_where_they_are(prefix: int, in_position: bool) -> None:
    """DINOv2 has a class token and four registers."""
    for r in (0, 3, 5):
        found = match_halves(metric(2, prefix + 10, 7), r, prefix, in_position=in_position)
        assert found.assign[:, :prefix].tolist() == [list(range(prefix))] * 2
        assert sorted(set(found.assign[0, prefix:].tolist())) == list(range(prefix, prefix + 10 - r))


@given(st.integers(2, 12), st.integers(0, 1000))
def test_the_order_of_channels_and_the_length_of_keys_do_not_matter(n: int, seed: int) -> None:
    keys = metric(1, n, seed)
    r = n // 2
    plain = match_halves(keys, r).assign
    assert torch.equal(match_halves(keys.flip(-1), r).assign, plain)
    assert torch.equal(match_halves(keys * torch.rand(1, n, 1, dtype=torch.float64).add(0.5), r).assign, plain)


def test_ties_go_to_the_earlier_token() -> None:
    found = match_halves(torch.ones(1, 8, 3), 2)
    assert found.source.tolist() == [[0, 1]]
    assert found.destination.tolist() == [[0, 0]]
    assert found.unmerged.tolist() == [[2, 3]]


@given(st.integers(2, 14), st.floats(0, 1), st.integers(0, 1000))
def test_unmerged_tokens_stay_in_position_order_where_that_is_asked_for(n: int, share: float, seed: int) -> None:
    r = round(share * (n // 2))
    found, plain = (match_halves(metric(2, n, seed), r, in_position=asked) for asked in (True, False))
    assert torch.equal(found.unmerged, plain.unmerged.sort(dim=1).values)
    assert torch.equal(found.source, plain.source)
    assert torch.equal(found.destination, plain.destination)
    evens = (n + 1) // 2 - r
    places = found.assign.gather(1, 2 * found.unmerged)
    assert torch.equal(places, torch.arange(evens).expand(2, evens))


def test_zero_keys_take_part_and_give_no_nan() -> None:
    keys = metric(1, 8, 0)
    keys[0, 2] = 0
    similarity, _ = best_match(unit(keys)[:, ::2], unit(keys)[:, 1::2])
    assert bool(similarity.isfinite().all())
    assert match_halves(torch.zeros(1, 8, 3), 4).n_out == 4


@given(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))
def test_best_match_in_tiles_is_the_loop(b: int, na: int, nb: int, elements: int, seed: int) -> None:
    x, y = metric(b, na, seed), metric(b, nb, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "BLOCK_ELEMENTS", elements)
        best, which = best_match(x, y)
    for i in range(b):
        for j in range(na):
            products = [float(x[i, j] @ y[i, t]) for t in range(nb)]
            assert which[i, j] == products.index(max(products))
            assert float(best[i, j]) == pytest.approx(max(products))


class Products(TorchDispatchMode):
    """Writes down the number of elements of every matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.bmm.default, torch.ops.aten.mm.default):
            self.elements.append(out.numel())
        return out


@pytest.mark.parametrize(("b", "na", "nb", "limit"), [(2, 9, 4, 24), (1, 9, 4, 24), (3, 5, 2, 1), (2, 5, 4, 1000)])
def test_no_more_similarities_are_held_than_allowed_and_tiles_are_full(b: int, na: int, nb: int, limit: int) -> None:
    rows = max(1, limit // (b * nb))
    with pytest.MonkeyPatch.context() as patch, Products() as products:
        patch.setattr(matching, "BLOCK_ELEMENTS", limit)
        best_match(metric(b, na, 0, 3), metric(b, nb, 1, 3))
    assert products.elements == [b * nb * len(range(na)[i : i + rows]) for i in range(0, na, rows)]
    assert matching.BLOCK_ELEMENTS * 4 == 64 << 20


def test_a_matching_keeps_nothing_for_a_backward_pass() -> None:
    keys = metric(1, 8, 0).requires_grad_()
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t):  # type: ignore[func-returns-value]
        match_halves(keys, 3)
        match_every_kth(keys, 2)
    assert saved == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_matching_of_narrow_keys_is_decided_in_float32(dtype: torch.dtype) -> None:
    keys = metric(2, 60, 3).to(dtype)
    expected = match_halves(keys.float(), 20).assign
    assert torch.equal(match_halves(keys, 20).assign, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(match_halves(keys, 20).assign, expected)


@given(st.integers(1, 2), st.integers(2, 15), st.integers(2, 5), st.integers(0, 1000))
def test_every_kth_token_takes_all_others(b: int, n: int, k: int, seed: int) -> None:
    assume(n >= k)
    keys = metric(b, n, seed)
    assign, m = match_every_kth(keys, k)
    assert m == n // k
    targets = [k * (t + 1) - 1 for t in range(m)]
    for i in range(b):
        for j in range(n):
            if j >= m * k:
                assert assign[i, j] == -1
            elif j in targets:
                assert assign[i, j] == targets.index(j)
            else:
                products = [cosine(keys[i, j], keys[i, t]) for t in targets]
                assert assign[i, j] == products.index(max(products))


def test_noise_is_a_function_of_sample_salt_and_place_alone() -> None:
    seeds = torch.tensor([5, -7, 2**62])
    drawn = noise(seeds, 50, 3, 1)
    assert torch.equal(noise(seeds[[2, 0]], 50, 3, 1), drawn[[2, 0]])
    assert torch.equal(noise(seeds, 20, 3, 1), drawn[:, :20])
    state = torch.get_rng_state()
    noise(seeds, 50, 3, 1)
    assert torch.equal(torch.get_rng_state(), state)
    for other in (noise(seeds, 50, 4, 1), noise(seeds, 50, 3, 2), noise(seeds, 50, 3), noise(seeds + 1, 50, 3, 1)):
        assert not bool((other == drawn).any())


def test_noise_is_the_same_in_every_release() -> None:
    """Tables that were made with random reducers can be made again."""
    drawn = noise(torch.tensor([0, -1, 123456789012345]), 3, 7, 2)
    assert drawn.tolist() == [
        [50391529, 658056564, 481704027],
        [50391529, 658056564, 481704027],
        [1264478815, 589698195, 16479083],
    ]


def test_noise_is_spread_evenly_over_values_and_places() -> None:
    drawn = noise(torch.arange(200), 100, 0)
    assert int(drawn.min()) >= 0
    assert int(drawn.max()) < 2**31
    assert len(drawn.unique()) > 19_980
    share = drawn.double() / 2**31
    assert abs(float(share.mean()) - 0.5) < 0.01
    assert float((share.mean(0) - 0.5).abs().max()) < 0.1  # no place is favoured
    histogram = torch.histc(share, 10, 0, 1)
    assert float(histogram.min()) > 1800
    ranks = drawn.argsort(1).argsort(1).double()
    for rows in (ranks, ranks.T):  # neither two places nor two samples move together
        together = torch.corrcoef(rows)
        assert float((together - torch.eye(len(rows))).abs().max()) < 0.55


def test_a_random_half_has_no_pattern() -> None:
    """Of two neighbours both are in a random half a quarter of the time; a weak hash keeps whole runs."""
    kept = torch.zeros(300, 128).scatter(1, noise(torch.arange(300) * 977, 128, 0).argsort(1)[:, :64], 1.0)
    for gap in (1, 2, 4, 8, 16, 32, 64):
        both = float((kept[:, gap:] * kept[:, :-gap]).mean())
        assert both == pytest.approx(0.25, abs=0.02), gap
