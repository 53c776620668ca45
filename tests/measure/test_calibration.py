"""Calibration: confidence against accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tokred.data.source import LabelSet
from tokred.measure.calibration import calibration, expected_error

SET = LabelSet("shape", ("a", "b"), offset=1)


def logits_for(confidence: float, n: int) -> torch.Tensor:
    p = torch.tensor([confidence, 1 - confidence])
    return torch.cat((torch.zeros(n, 1), p.log().expand(n, 2)), dim=1)


def test_confidence_that_is_met_has_no_error() -> None:
    labels = torch.tensor([0] * 80 + [1] * 20)
    found = calibration(logits_for(0.8, 100), labels, list(range(100)), SET)
    assert found.accuracy == pytest.approx(0.8)
    assert found.confidence == pytest.approx(0.8)
    assert found.brier.value == pytest.approx(2 * (0.8 * 0.04 + 0.2 * 0.64))


def test_overconfidence_is_the_gap() -> None:
    labels = torch.tensor([0, 1] * 50)
    found = calibration(logits_for(0.99, 100), labels, list(range(100)), SET)
    assert found.ece.value == pytest.approx(0.49, abs=0.02)
    assert found.ece.low <= found.ece.value <= found.ece.high


def test_bins_are_weighted_by_their_clips() -> None:
    confidence = np.array([0.9, 0.9, 0.6, 0.6])
    right = np.array([1.0, 1.0, 1.0, 0.0])
    assert expected_error(confidence, right, bins=2) == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)


def test_the_interval_is_that_of_samples_drawn_one_by_one() -> None:
    n = 2500  # more than one slice of samples
    drawn = np.random.default_rng(3)
    p = drawn.uniform(0.5, 1.0, n)
    labels = torch.from_numpy((drawn.uniform(size=n) > 0.8).astype(np.int64))
    logits = torch.from_numpy(np.stack([np.zeros(n), np.log(p), np.log1p(-p)], axis=1))
    found = calibration(logits, labels, list(range(n)), SET).ece
    rng, right = np.random.default_rng(0), 1.0 - labels.numpy()
    alone = [expected_error(p[i], right[i]) for i in (rng.integers(0, n, n) for _ in range(500))]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(alone, (2.5, 97.5))))


def test_views_of_an_item_count_once() -> None:
    one = calibration(logits_for(0.7, 4), torch.zeros(4, dtype=torch.long), [0, 1, 2, 3], SET)
    two = calibration(logits_for(0.7, 8), torch.zeros(8, dtype=torch.long), [0, 0, 1, 1, 2, 2, 3, 3], SET)
    assert one.brier.n == two.brier.n == 4
    assert one.brier.value == pytest.approx(two.brier.value)
