"""Overlap of kept sets, agreement of groupings, agreement of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tokred.measure.overlap import expected_iou, kept_iou, merge_rand, overlap, rank_agreement

SOURCES = hnp.arrays(np.int64, (2, 7), elements=st.integers(-1, 4))


def test_iou_counts_patches_that_both_carry() -> None:
    a = np.array([[0, 1, -1, 2], [-1, -1, -1, -1]])
    b = np.array([[5, -1, -1, 6], [-1, -1, -1, -1]])
    assert kept_iou(a, b).tolist() == [2 / 3, 1.0]


@settings(deadline=None)
@given(SOURCES, SOURCES)
def test_overlaps_are_symmetric_and_one_with_itself(a, b) -> None:
    for measure in (kept_iou, merge_rand, expected_iou):
        np.testing.assert_allclose(measure(a, b), measure(b, a))
    np.testing.assert_array_equal(kept_iou(a, a), 1.0)
    np.testing.assert_allclose(merge_rand(a, a), 1.0)


@settings(deadline=None)
@given(SOURCES, st.permutations(range(5)))
def test_names_of_groups_do_not_matter(a, names) -> None:
    renamed = np.where(a >= 0, np.array([*names, -1])[a], -1)
    np.testing.assert_allclose(merge_rand(a, renamed), 1.0)


def test_random_choices_overlap_as_expected_and_random_groups_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.where(rng.random((400, 200)) < 0.4, 1, -1) for _ in range(2))
    assert kept_iou(a, b).mean() == pytest.approx(expected_iou(a, b).mean(), abs=0.01)
    groups = rng.integers(0, 6, size=(2, 200, 100))
    assert merge_rand(groups[0], groups[1]).mean() == pytest.approx(0.0, abs=0.01)


def test_a_known_adjusted_rand_index() -> None:
    # Two groups of three against the classic split: table [[2, 1], [1, 2]]; (2 - 2.4) / (6 - 2.4).
    assert merge_rand(np.array([[0, 0, 0, 1, 1, 1]]), np.array([[0, 0, 1, 0, 1, 1]]))[0] == pytest.approx(-1 / 9)


def test_means_have_intervals() -> None:
    a = np.array([[0, 1, -1, 2], [0, -1, -1, 2]])
    found = overlap(a, a)
    assert found["iou"].value == found["rand"].value == 1.0
    assert found["iou_random"].value < 1


def test_ranks_agree_or_not() -> None:
    x = np.arange(40, dtype=float)
    same = rank_agreement(x, x**3)
    assert same["spearman"].value == pytest.approx(1.0)
    assert same["kendall"].value == pytest.approx(1.0)
    assert rank_agreement(x, -x)["kendall"].high < 0
    noise = np.random.default_rng(0).normal(size=40)
    assert rank_agreement(x, noise)["spearman"].low < 0 < rank_agreement(x, noise)["spearman"].high


@pytest.mark.parametrize("b", [np.zeros((2, 3), int), np.zeros(4, int)])
def test_other_shapes_are_refused(b) -> None:
    with pytest.raises(ValueError, match="same grid"):
        kept_iou(np.zeros((2, 4), int), b)
    with pytest.raises(ValueError, match="at least three"):
        rank_agreement(np.zeros(2), np.zeros(2))
