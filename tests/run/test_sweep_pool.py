"""Seeds in one number: other clips add up, the same clips are averaged over."""

from __future__ import annotations

import numpy as np
import pytest

from tokred.measure.accuracy import Accuracy
from tokred.measure.statistics import mcnemar, paired_difference, wilson
from tokred.run.sweep_pool import Part, per_clip, pooled_difference, pooled_top1, signed_rank


def found(correct: str, items: range | None = None) -> Accuracy:
    right = tuple(c == "1" for c in correct)
    return Accuracy("motion", wilson(sum(right), len(right)), tuple(items or range(len(right))), right)


def test_other_clips_are_more_clips() -> None:
    parts = [Part("a", found("1110"), found("1000")), Part("b", found("0111"), found("0011"))]
    assert pooled_top1(parts) == wilson(6, 8)
    assert pooled_difference(parts) == (paired_difference(3, 0, 8), mcnemar(3, 0))


def test_the_same_clips_under_another_seed_are_no_second_sample() -> None:
    parts = [Part("a", found("1110"), found("1000")), Part("a", found("0110"), found("1000"))]
    top1 = pooled_top1(parts)
    assert (top1.value, top1.n) == (pytest.approx(5 / 8), 4)
    pooled = pooled_difference(parts)
    assert pooled is not None
    gap, p = pooled
    assert (gap.value, gap.n) == (pytest.approx(3 / 8), 4)
    assert p == signed_rank(np.array([-0.5, 1.0, 1.0, 0.0]))


def test_items_are_paired_by_their_number_not_by_their_place() -> None:
    part = Part("a", found("10"), Accuracy("motion", wilson(1, 2), (1, 0), (False, True)))
    pooled = pooled_difference([part])
    assert pooled is not None
    assert pooled[0].value == 0.0


def test_other_items_are_refused_not_paired() -> None:
    with pytest.raises(ValueError, match="2 items are only on one side"):
        pooled_difference([Part("a", found("10"), found("10", range(1, 3)))])


def test_without_the_other_side_there_is_no_difference() -> None:
    assert pooled_difference([Part("a", found("10"))]) is None


def test_values_of_a_clip_are_averaged_over_the_seeds_that_share_it() -> None:
    rows = [("a", np.array([[1.0, 2.0]])), ("b", np.array([[5.0, 6.0]])), ("a", np.array([[3.0, 4.0]]))]
    assert per_clip(rows).tolist() == [[2.0, 3.0], [5.0, 6.0]]


def test_no_difference_at_all_is_no_evidence() -> None:
    assert signed_rank(np.zeros(5)) == 1.0
    assert signed_rank(np.arange(1.0, 21.0)) < 1e-5
