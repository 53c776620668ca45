from __future__ import annotations

from itertools import pairwise
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokred.measure.statistics import Interval, bootstrap, holm, mcnemar, paired_difference, wilson

Z = 1.959963984540054


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    """(gained, lost, n) of a paired table."""
    n = draw(st.integers(1, 5000))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Stat. Med. 17, 857, Table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))
    assert interval.value == successes / n


@given(st.integers(1, 10**6), st.floats(0, 1), st.floats(0.5, 0.999))
def test_wilson_solves_its_defining_equation_and_holds_the_estimate(n: int, share: float, confidence: float) -> None:
    from scipy.stats import norm

    k = round(share * n)
    interval = wilson(k, n, confidence)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0
    z = norm.ppf(0.5 + confidence / 2)
    for end in (interval.low, interval.high):
        if 0.0 < end < 1.0:
            assert abs(end - k / n) == pytest.approx(z * sqrt(end * (1 - end) / n), rel=1e-6, abs=1e-9)


@given(st.integers(1, 1000), st.data())
def test_wilson_of_failures_mirrors_wilson_of_successes(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    ours, mirrored = wilson(k, n), wilson(n - k, n)
    assert ours.low == pytest.approx(1 - mirrored.high, abs=1e-12)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "confidence", "low", "high"),
    [
        # Fagerland, Lydersen, Laake 2014, airway reactivity: Tango's interval
        (1, 7, 21, 0.95, -0.517, -0.026),
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.90)
        (28, 25, 618, 0.90, -0.0148, 0.0247),
        # No discordant pair: z^2 / (n + z^2) in closed form
        (0, 0, 1000, 0.95, -(Z**2) / (1000 + Z**2), Z**2 / (1000 + Z**2)),
    ],
)
def test_the_paired_interval_gives_published_values(
    gained: int, lost: int, n: int, confidence: float, low: float, high: float
) -> None:
    interval = paired_difference(gained, lost, n, confidence)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=6e-4), pytest.approx(high, abs=6e-4))
    assert interval.value == (gained - lost) / n


@given(tables())
def test_the_paired_interval_holds_its_estimate_and_stays_in_range(table: tuple[int, int, int]) -> None:
    interval = paired_difference(*table)
    assert -1.0 <= interval.low <= interval.value <= interval.high <= 1.0


@given(tables())
def test_swapping_the_models_mirrors_the_paired_interval(table: tuple[int, int, int]) -> None:
    gained, lost, n = table
    ours, mirrored = paired_difference(gained, lost, n), paired_difference(lost, gained, n)
    assert ours.low == pytest.approx(-mirrored.high, abs=1e-9)
    assert ours.high == pytest.approx(-mirrored.low, abs=1e-9)


@given(tables())
def test_the_paired_interval_leaves_out_zero_exactly_when_mcnemars_score_test_rejects(
    table: tuple[int, int, int],
) -> None:
    gained, lost, n = table
    interval = paired_difference(gained, lost, n)
    rejects = gained + lost > 0 and abs(gained - lost) / sqrt(gained + lost) > Z
    assert rejects == (not interval.low <= 0.0 <= interval.high)


@given(tables(), st.integers(2, 10))
def test_more_clips_of_the_same_kind_narrow_the_paired_interval(table: tuple[int, int, int], factor: int) -> None:
    gained, lost, n = table
    few, many = paired_difference(gained, lost, n), paired_difference(factor * gained, factor * lost, factor * n)
    assert many.high - many.low <= few.high - few.low + 1e-9


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    draws = rng.multinomial(500, (0.03, 0.06, 0.91), size=600)
    hits = sum(i.low <= -0.03 <= i.high for i in (paired_difference(int(g), int(x), 500) for g, x, _ in draws))
    assert 0.92 <= hits / 600 <= 0.98


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_symmetric_and_a_probability(gained: int, lost: int) -> None:
    p = mcnemar(gained, lost)
    assert p == pytest.approx(mcnemar(lost, gained), rel=1e-9)
    assert 0.0 < p <= 1.0


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_doubled_binomial_tail(gained: int, lost: int) -> None:
    n = gained + lost
    tail = sum(comb(n, i) for i in range(min(gained, lost) + 1)) / 2**n
    assert mcnemar(gained, lost) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_models_that_never_differ_are_not_significantly_different() -> None:
    assert mcnemar(0, 0) == 1.0


def test_holm_gives_the_textbook_values_in_the_given_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_no_correction_and_bonferroni_and_keeps_the_order(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    assert all(adjusted[a] <= adjusted[b] for a, b in pairwise(order))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
@settings(max_examples=50)
def test_the_bootstrap_holds_its_estimate_and_stays_among_the_values(values: list[float]) -> None:
    interval = bootstrap(values, np.median, resamples=200)
    assert interval.low <= interval.value <= interval.high
    assert min(values) <= interval.low
    assert interval.high <= max(values)
    assert interval.n == len(values)


def test_the_bootstrap_of_a_mean_is_close_to_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(5.0, 2.0, 400)
    interval = bootstrap(values)
    half = Z * values.std() / sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.02)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.02)


def test_the_bootstrap_repeats_for_a_seed_and_leaves_the_global_random_state_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]  # noqa: NPY002
    values = [float(i * i) for i in range(40)]
    assert bootstrap(values, seed=5) == bootstrap(values, seed=5)
    assert bootstrap(values, seed=5) != bootstrap(values, seed=6)
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]  # noqa: NPY002


def test_the_bootstrap_of_many_values_is_cut_into_slices() -> None:
    interval = bootstrap(np.arange(300_000.0), resamples=7)
    assert interval == Interval(149_999.5, interval.low, interval.high, 300_000, "bootstrap")
    assert interval.low < 149_999.5 < interval.high


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(0, 0), "n = 0; allowed: 1 or more"),
        (lambda: wilson(3, 2), "successes = 3; allowed: 0 to n = 2"),
        (lambda: wilson(-1, 2), "successes = -1"),
        (lambda: wilson(1, 2, 1.0), "confidence = 1.0; allowed: between 0 and 1"),
        (lambda: paired_difference(2, 2, 3), "both = 4; allowed: 0 to n = 3"),
        (lambda: paired_difference(-1, 2, 3), "gained = -1"),
        (lambda: paired_difference(1, 1, 3, 0.0), "confidence = 0.0"),
        (lambda: mcnemar(-2, 5), "gained = -2"),
        (lambda: holm([0.2, float("nan")]), "p value nan"),
        (lambda: holm([1.1]), "p value 1.1"),
        (lambda: bootstrap([]), "shape \\(0,\\)"),
        (lambda: bootstrap([1.0], confidence=2.0), "confidence = 2.0"),
    ],
)
def test_impossible_input_is_refused_with_its_value(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
