from __future__ import annotations

import pytest
from testing.zoo import spec

from tokred.methods import STTS, Eventful, ToMe
from tokred.registry import build
from tokred.testing import Case, default_backbones
from tokred.testing.claims import expect_counts_vary, expect_grid, expect_needs_read, expect_not_whole, expect_state
from tokred.testing.failures import WARNING, Broken

VIDEO = default_backbones()[0]


def test_true_declarations_pass() -> None:
    expect_state(Case(Eventful(r=8), VIDEO))
    expect_not_whole(Case(Eventful(r=8, pool_size=2), VIDEO))
    expect_not_whole(Case(ToMe(r=4), VIDEO))
    expect_needs_read(Case(build("vid_tldr"), VIDEO))
    squares = Case(STTS(keep=0.5), VIDEO)
    expect_grid(squares.watch())
    assert expect_counts_vary(squares) is None


def test_counts_that_never_vary_are_a_warning_if_promised_and_wrong_if_not() -> None:
    told = expect_counts_vary(Case(build(spec("TooModest")), VIDEO))
    assert told is not None
    assert told.startswith(WARNING)
    with pytest.raises(Broken, match="token counts that differ with the content"):
        expect_counts_vary(Case(build(spec("ClaimsDynamic")), VIDEO))
    assert expect_counts_vary(Case(build(spec("ByThreshold")), VIDEO)) is None


def test_a_square_of_another_size_in_each_frame_is_no_grid() -> None:
    with pytest.raises(Broken, match="a rectangle of one size in every frame"):
        expect_grid(Case(build(spec("ClaimsGrid")), VIDEO).watch())
    expect_grid(Case(build(spec("EverySecondColumn")), VIDEO).watch())
