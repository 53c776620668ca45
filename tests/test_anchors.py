"""The squares of a frame, against loops and the counts that the definition gives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.anchors import Anchors, side


@st.composite
def anchors(draw: st.DrawFn) -> Anchors:
    h, w = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    stride = draw(st.none() | st.integers(1, 4))
    return Anchors(h, w, draw(st.integers(1, h)), draw(st.integers(1, w)), stride)


@given(anchors(), st.integers(0, 999))
def test_places_and_means_are_those_of_all_windows_in_reading_order(a: Anchors, seed: int) -> None:
    scores = torch.randn(2, a.h * a.w, generator=torch.Generator().manual_seed(seed))
    down = a.stride or max((a.h - a.rows) // 2, 1)
    across = a.stride or max((a.w - a.columns) // 2, 1)
    places, means = [], []
    for top in range(0, a.h - a.rows + 1, down):
        for left in range(0, a.w - a.columns + 1, across):
            window = [(top + y) * a.w + left + x for y in range(a.rows) for x in range(a.columns)]
            places.append(window)
            means.append([float(row[window].double().mean()) for row in scores])
    assert a.places().tolist() == places
    assert a.count == len(places)
    assert a.area == len(places[0])
    torch.testing.assert_close(a.means(scores), torch.tensor(means).T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("play", "count"), [(0, 1), (1, 4), (2, 9), (3, 16), (4, 9), (5, 9), (6, 9), (7, 9), (8, 9)])
def test_the_number_of_squares_follows_from_the_free_play(play: int, count: int) -> None:
    assert Anchors(12, 12, 12 - play, 12 - play).count == count


@given(st.integers(1, 60), st.floats(0.001, 1))
def test_the_side_is_the_whole_root_of_the_whole_share(length: int, share: float) -> None:
    assert side(length, share) == int(math.sqrt(int(length * length * share)))


def test_sides_of_the_published_configurations() -> None:
    assert [side(14, share) for share in (0.863, 0.7367, 0.6174)] == [13, 12, 11]


@pytest.mark.parametrize(
    ("size", "centre"), [((5, 5, 3, 3), 4), ((4, 6, 3, 3), 1), ((4, 4, 4, 4), 0), ((9, 9, 1, 5), 4)]
)
def test_the_centre_is_the_square_nearest_to_the_middle(size: tuple[int, int, int, int], centre: int) -> None:
    assert Anchors(*size).centre == centre


def test_a_square_that_does_not_fit_is_refused_with_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"a square of 5 x 2 is not in a frame of 4 x 4: allowed is 1..4 x 1..4"):
        Anchors(4, 4, 5, 2)
    with pytest.raises(ValueError, match="stride = 0 is not a whole number of at least 1"):
        Anchors(4, 4, 2, 2, 0)
