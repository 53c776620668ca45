"""Are confident answers right: calibration of a model's probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokred.data.source import LabelSet
from tokred.measure.accuracy import labels_of_items
from tokred.measure.statistics import Interval, bootstrap
from tokred.measure.views import item_scores

BINS, RESAMPLES = 15, 500


@dataclass(frozen=True)
class Calibration:
    """How far confidence is from accuracy.

    Args:
        ece: expected calibration error with 15 bins of equally many clips, with a 95 % bootstrap interval.
        brier: mean squared distance of the probabilities from the truth, likewise.
        confidence: mean probability of the first answer; accuracy: share of right ones.
    """

    ece: Interval
    brier: Interval
    confidence: float
    accuracy: float


def calibration(logits: Tensor, labels: Tensor, items: Sequence[int], label_set: LabelSet) -> Calibration:
    """Calibration on one label set; softmax inside its slice, probabilities averaged over the views of an item.

    Args:
        logits: (V, classes); labels: (V,); items: the item of each view.
    Raises:
        ValueError: a label outside the label set, or logits that are not finite.
    """
    scores = item_scores(logits, items, label_set)
    label_of = labels_of_items(labels, items, label_set)
    truth = torch.tensor([label_of[item] for item in scores.items])
    probabilities = scores.log_probabilities.exp()
    confidence, answer = probabilities.max(dim=1)
    right = (answer == truth).double()
    wanted = torch.nn.functional.one_hot(truth, probabilities.shape[1])
    brier = (probabilities - wanted).square().sum(1)
    sure, correct = confidence.numpy(), right.numpy()
    low, high = np.percentile(_resampled(sure, correct), (2.5, 97.5))
    ece = Interval(expected_error(sure, correct), float(low), float(high), len(sure), "percentile bootstrap")
    return Calibration(ece, bootstrap(brier.numpy()), float(sure.mean()), float(correct.mean()))


def expected_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: |accuracy - confidence| in bins of equally many clips, weighted by their size.

    Args:
        confidence: (n,) in [0, 1]; right: (n,) 0 or 1.
    """
    return float(_errors(confidence[None], right[None], bins)[0])


def _errors(confidence: np.ndarray, right: np.ndarray, bins: int) -> np.ndarray:
    """`expected_error` of every row of (d, n), as (d,)."""
    n = confidence.shape[1]
    order = np.argsort(confidence, axis=1, kind="stable")
    gaps = np.take_along_axis(right - confidence, order, axis=1)
    starts = np.cumsum([0, *map(len, np.array_split(np.arange(n), min(bins, n)))])[:-1]
    # The size of a bin times the gap of its means is the sum of its gaps.
    return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(axis=1) / n)


def _resampled(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Expected errors of 500 samples of clips, (500,); in slices, which many clips would otherwise fill memory with."""
    rng, n = np.random.default_rng(0), len(confidence)
    step = max(1, 1_000_000 // n)
    sizes = [min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step)]
    drawn = (rng.integers(0, n, (size, n)) for size in sizes)
    return np.concatenate([_errors(confidence[i], right[i], BINS) for i in drawn])
