"""Do two methods keep the same patches, merge the same ones, and find the same clips hard?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokred.measure.statistics import Interval, bootstrap

RESAMPLES = 200
"""Of ranks, each of which sorts all clips."""

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]


def kept_iou(a: Ints, b: Ints) -> NDArray[np.float64]:
    """Patches that both carry, as a share of those that either carries (intersection over union).

    Args:
        a, b: (V, P) the token that carries each patch, -1 = dropped.
    Returns:
        (V,) in [0, 1]; 1 where both dropped everything.
    """
    _same(a, b)
    left, right = a >= 0, b >= 0
    both, either = (left & right).sum(1), (left | right).sum(1)
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def expected_iou(a: Ints, b: Ints) -> NDArray[np.float64]:
    """The IoU of two independent random choices of the same sizes, approximately: what an overlap is read against.

    Args:
        a, b: (V, P) as for `kept_iou`.
    Returns:
        (V,): E[intersection] / E[union].
    """
    _same(a, b)
    p, q = (a >= 0).mean(1), (b >= 0).mean(1)
    return np.where(p + q > 0, p * q / np.maximum(p + q - p * q, 1e-12), 1.0)


def merge_rand(a: Ints, b: Ints) -> NDArray[np.float64]:
    """Adjusted Rand index of two groupings of the patches (Hubert and Arabie, 1985): 1 for the same groups, 0 as by
    chance. Each dropped patch is a group of its own.

    Args:
        a, b: (V, P) as for `kept_iou`.
    Returns:
        (V,); 1 where both leave every patch alone.
    """
    _same(a, b)
    return np.array([_adjusted_rand(_groups(x), _groups(y)) for x, y in zip(a, b)])


def rank_agreement(a: Floats, b: Floats, *, seed: int = 0) -> dict[str, Interval]:
    """Whether two methods rank the clips alike, e.g. by their confidence or by the patches they keep.

    Args:
        a, b: (V,) one value per clip.
    Returns:
        ``spearman`` and ``kendall`` (tau-b), with 95 % bootstrap intervals over clips.
    Raises:
        ValueError: fewer than three clips, or other lengths.
    """
    from scipy import stats

    if a.shape != b.shape or a.ndim != 1 or len(a) < 3:
        raise ValueError(f"two values per clip for at least three clips are needed, got {a.shape} and {b.shape}")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(a), size=(RESAMPLES, len(a)))
    found = {}
    for name, measure in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        value = float(measure(a, b).statistic)
        drawn = np.array([measure(a[i], b[i]).statistic for i in picks if np.ptp(a[i]) > 0 and np.ptp(b[i]) > 0])
        low, high = np.percentile(drawn, (2.5, 97.5)) if len(drawn) else (np.nan, np.nan)
        found[name] = Interval(value, float(low), float(high), len(a), "percentile bootstrap over clips")
    return found


def overlap(a: Ints, b: Ints) -> dict[str, Interval]:
    """IoU, the IoU of random choices, and the adjusted Rand index, as means over clips with bootstrap intervals.

    Args:
        a, b: (V, P) as for `kept_iou`.
    """
    values = {"iou": kept_iou(a, b), "iou_random": expected_iou(a, b), "rand": merge_rand(a, b)}
    return {name: bootstrap(found) for name, found in values.items()}


def _groups(source: Ints) -> Ints:
    """Labels of groups: dropped patches get one each."""
    labels = source.astype(np.int64)
    dropped = labels < 0
    labels[dropped] = labels.max(initial=0) + 1 + np.arange(dropped.sum())
    return labels


def _adjusted_rand(x: Ints, y: Ints) -> float:
    """Over pairs counted in the contingency table; exact integers until the last division."""
    _, x = np.unique(x, return_inverse=True)
    _, y = np.unique(y, return_inverse=True)
    table = np.zeros((x.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(table, (x, y), 1)
    together = _pairs(table).sum()
    rows, columns = _pairs(table.sum(1)).sum(), _pairs(table.sum(0)).sum()
    everything = _pairs(np.array(len(x)))
    expected = rows * columns / max(int(everything), 1)
    largest = (rows + columns) / 2
    return 1.0 if largest == expected else float((together - expected) / (largest - expected))


def _pairs(counts: Ints) -> Ints:
    return counts * (counts - 1) // 2


def _same(a: Ints, b: Ints) -> None:
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"the two must be (clips, patches) on the same grid, got {a.shape} and {b.shape}")
