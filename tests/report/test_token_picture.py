"""Dropped patches fade, merged ones share a colour and a border, kept ones are as they were."""

from __future__ import annotations

import numpy as np

from tokred.report.token_picture import PAPER, colour_of, member_counts, paint

FRAME = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)


def test_kept_patches_are_untouched_and_dropped_ones_fade() -> None:
    source = np.array([[0, 1, 2], [3, -1, 4]])
    drawn = paint(FRAME, source, member_counts(source))
    assert np.array_equal(drawn[:4], FRAME[:4])
    faded = drawn[4:, 4:8].astype(int)
    assert np.abs(faded - PAPER).max() < np.abs(FRAME[4:, 4:8].astype(int) - PAPER).max() / 4
    assert np.array_equal(drawn[4:, :4], FRAME[4:, :4])


def test_a_region_has_one_tint_and_a_border_on_its_own_side() -> None:
    source = np.array([[0, 0, 1], [2, 3, 4]])
    grey = np.full_like(FRAME, 128)
    drawn = paint(grey, source, member_counts(source)).astype(int)
    colour = colour_of(np.array([0]))[0]
    inside = drawn[1, 1]
    assert np.abs(inside - colour).sum() < np.abs(128 - colour).sum()
    assert np.array_equal(drawn[1, 3], drawn[1, 5])  # no border inside the region
    assert np.array_equal(drawn[3, 2], np.rint(0.8 * colour).astype(int))  # towards the row below
    assert np.array_equal(drawn[4, 2], [128, 128, 128])  # not on the neighbour's side


def test_members_are_counted_over_the_whole_clip() -> None:
    """A token that carries one patch in each of two frames is merged in both."""
    source = np.array([[[0, 1]], [[0, -1]]])
    assert member_counts(source).tolist() == [2, 1]
    assert member_counts(np.full((2, 2), -1)).tolist() == [0]


def test_odd_sizes_cover_every_pixel_and_scaling_repeats_them() -> None:
    source = np.array([[0, -1]])
    drawn = paint(FRAME[:7, :11], source, member_counts(source), scale=3)
    assert drawn.shape == (21, 33, 3)
    assert np.array_equal(drawn[:, :15:3][::3], FRAME[:7, :5])
