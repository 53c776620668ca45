"""Intervals and tests for shares and their differences.

Correct answers of two models on the same clips are paired; treating them as independent would hide small effects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Args:
        value: the estimate.
        low: lower end; high: upper end.
        n: number of clips (or rounds) that it rests on.
        method: how the interval was found.
    """

    value: float
    low: float
    high: float
    n: int
    method: str


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """A share with Wilson's score interval.

    Args:
        successes: how many of n; n: at least 1.
        confidence: between 0 and 1.
    """
    from scipy.stats import binomtest

    _check_counts(n, successes=successes)
    _check_confidence(confidence)
    ends = binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    share = successes / n
    # At 0 and n successes an end is the estimate itself, up to rounding.
    return Interval(share, min(max(float(ends.low), 0.0), share), max(min(float(ends.high), 1.0), share), n, "wilson")


def paired_difference(gained: int, lost: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Difference of two shares on the same clips with Tango's score interval (Tango 1998, Stat. Med. 17, 891).

    The interval leaves out 0 exactly when McNemar's asymptotic test rejects, holds for any counts (also none), and
    never leaves [-1, 1].

    Args:
        gained: clips that only the second model has right; lost: clips that only the first one has right.
        n: all clips.
        confidence: between 0 and 1.
    Returns:
        (gained - lost) / n, second minus first.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    _check_counts(n, gained=gained, lost=lost, both=gained + lost)
    _check_confidence(confidence)
    estimate = (gained - lost) / n
    z = float(norm.ppf(0.5 + confidence / 2))

    def excess(difference: float, sign: int) -> float:
        return sign * (gained - lost - n * difference) - z * sqrt(n * _tango_variance(gained, lost, n, difference))

    ends = []
    for sign in (1, -1):
        bound = -float(sign)
        # At the estimate itself the variance may vanish (no gains, no losses), so start a hair beside it.
        start = estimate - sign * 1e-9
        ends.append(bound if estimate == bound else float(brentq(excess, bound, start, args=(sign,), xtol=1e-12)))
    return Interval(estimate, ends[0], ends[1], n, "tango")


def _tango_variance(gained: int, lost: int, n: int, difference: float) -> float:
    """Variance of one pair's difference under the hypothesis ``difference``, by restricted maximum likelihood."""
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    return max(2 * q + difference * (1 - difference), 0.0)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p value of McNemar's test: are gains and losses equally likely?

    Args:
        gained: clips that only the second model has right; lost: clips that only the first one has right.
    Returns:
        p in (0, 1]; 1.0 when the models never differ.
    """
    from scipy.stats import binomtest

    _check_counts(gained + lost, gained=gained, lost=lost, least=0)
    return float(binomtest(gained, gained + lost, 0.5).pvalue) if gained + lost else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in the given order.

    Raises:
        ValueError: a value outside [0, 1], or not a number.
    """
    for p in p_values:
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"p value {p} is outside [0, 1]")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def bootstrap(
    values: Sequence[float] | NDArray[np.float64],
    statistic: Callable[..., NDArray[np.float64]] = np.mean,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A statistic with its percentile bootstrap interval.

    Args:
        values: (n,), at least one.
        statistic: takes an array and ``axis``, e.g. ``np.mean`` or ``np.median``.
        confidence: between 0 and 1.
        resamples: number of resamples; seed: of their own generator.
    Returns:
        The interval; with one value it has no width, so look at ``n``.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size < 1:
        raise ValueError(f"bootstrap needs (n,) values with n of 1 or more, got shape {data.shape}")
    _check_confidence(confidence)
    estimate = float(statistic(data, axis=0))
    rng = np.random.default_rng(seed)
    # In slices: 2000 resamples of many values would fill the memory at once.
    step = max(1, 1_000_000 // data.size)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    draws = [statistic(data[rng.integers(0, data.size, (size, data.size))], axis=1) for size in sizes]
    low, high = np.quantile(np.concatenate(draws), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), int(data.size), "bootstrap")


def _check_counts(n: int, *, least: int = 1, **counts: int) -> None:
    if n < least:
        raise ValueError(f"n = {n}; allowed: {least} or more")
    for name, value in counts.items():
        if not 0 <= value <= n:
            raise ValueError(f"{name} = {value}; allowed: 0 to n = {n}")


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence = {confidence}; allowed: between 0 and 1, both excluded")
