"""A break that comes once is rounding, one that comes again is the method's; near ties that were found are known."""

from __future__ import annotations

from typing import Any

import pytest

import tokred
from tokred.testing import StepExample, check_step
from tokred.testing.failures import Broken
from tokred.testing.near_ties import OTHERS, unless_a_near_tie
from tokred.testing.trial import Trial

GRID = tokred.build("random_drop:keep=0.5")


@pytest.mark.parametrize("features", ["normal", "tiny"])
def test_two_patches_are_equally_far_from_their_mean(features: str) -> None:
    for seed in range(20):
        example = StepExample(batch=2, features=features, seed=seed)
        assert example.grid == (1, 1, 2)
        check_step(tokred.build("stts_heuristic:keep=0.562"), example, only="check_channel_order")


def breaks_at(*seeds: int) -> tuple[list[int], Trial]:
    """Seeds that were looked at, and the trial of seed 7."""
    seen: list[int] = []

    @unless_a_near_tie
    def clause(trial: Trial) -> None:
        seen.append(trial.example.seed)
        if trial.example.seed in seeds:
            raise Broken("nothing", "something")

    trial = Trial(GRID, StepExample(grid=(2, 2, 2), seed=7))
    clause(trial)
    return seen, trial


def test_what_holds_is_looked_at_once() -> None:
    assert breaks_at()[0] == [7]


def test_what_breaks_on_one_content_alone_is_a_near_tie() -> None:
    assert breaks_at(7)[0] == list(range(7, 8 + OTHERS))


def test_what_breaks_again_is_broken() -> None:
    with pytest.raises(Broken, match="something"):
        breaks_at(7, 9)


@pytest.mark.parametrize(
    "equal",
    [
        {"features": "constant", "grid": (2, 2, 2)},
        {"features": "duplicated", "grid": (2, 2, 2)},
        {"attention": "uniform", "grid": (2, 2, 2)},
        {"grid": (1, 1, 2)},
    ],
)
def test_equals_are_not_compared(equal: dict[str, Any]) -> None:
    @unless_a_near_tie
    def clause(trial: Trial) -> None:
        raise Broken("nothing", "something")

    clause(Trial(GRID, StepExample(**equal)))
    with pytest.raises(Broken, match="something"):
        clause(Trial(GRID, StepExample(grid=(2, 2, 2))))


@pytest.mark.parametrize(
    ("spec", "example", "check"),
    [
        (
            "evit:keep=0.88",
            StepExample(grid=(4, 3, 5), batch=3, windows=True, attention="zero_rows", step=None, seed=476),
            "check_channel_order",
        ),
        (
            "topk:keep=0.88",
            StepExample(grid=(4, 3, 5), batch=3, windows=True, attention="zero_rows", step=None, seed=476),
            "check_channel_order",
        ),
        (
            "evit:keep=0.879",
            StepExample(grid=(2, 4, 4), batch=3, dim=8, heads=2, attention="one_hot", seed=832),
            "check_channel_order",
        ),
        (
            "sta:r=4",
            StepExample(grid=(2, 5, 6), dim=8, windows=True, attention="zero_rows", step=None, seed=294),
            "check_channel_order",
        ),
        (
            "eventful:r=6",
            StepExample(grid=(3, 4, 4), batch=2, prefix=2, dim=8, gone=3, features="tiny", step=None),
            "check_batch_independence",
        ),
        (
            "eventful:r=8",
            StepExample(grid=(1, 3, 4), batch=2, gone=2, features="tiny", step=None, seed=2),
            "check_batch_independence",
        ),
    ],
)
def test_near_ties_that_ten_thousand_examples_of_each_method_found(spec, example, check, monkeypatch) -> None:
    check_step(tokred.build(spec), example, only=check)
    monkeypatch.setattr("tokred.testing.near_ties._breaks_elsewhere", lambda drawn, trial: True)
    with pytest.raises(AssertionError, match=check):
        check_step(tokred.build(spec), example, only=check)
