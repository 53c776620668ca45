"""A search never tests on what it was tuned on, and goes on where it stopped."""

from __future__ import annotations

import json

import pytest

from tokred.run.clips import ClipSettings
from tokred.run.tune import TuneError, TuneSettings, split, tune


def test_items_are_split_without_overlap_by_a_seed() -> None:
    tuning, testing = split(range(50), 20, seed=0)
    assert len(tuning) == 20
    assert len(testing) == 30
    assert not tuning & testing
    assert split(range(50), 20, seed=0) == (tuning, testing)
    assert split(range(50), 20, seed=1) != (tuning, testing)


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(TuneError, match="leave none to test on"):
        split(range(8), 8, seed=0)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    out = tmp_path_factory.mktemp("tune")
    settings = TuneSettings("topk", 0.6, clips=ClipSettings(clips=20), calibration=8, test=12, trials=3)
    return settings, out, tune(settings, out)


def test_the_tuned_schedule_costs_the_same_and_is_the_best_that_was_tried(searched) -> None:
    _, _, found = searched
    assert found["clips"] == {"tuned_on": 8, "tested_on": 12, "shared": 0}
    assert abs(found["tuned"]["share"] - 0.6) < 0.02
    assert found["tuned"]["loss"] == min(t["loss"] for t in found["trials"] if t["loss"] is not None)
    gain = found["gain"]["accuracy"]["motion"]
    assert gain["gain"] == pytest.approx(gain["tuned"] - gain["own"])
    assert gain["low"] <= gain["gain"] <= gain["high"]
    assert gain["n"] == 12
    json.dumps(found, allow_nan=False)


def test_trials_are_kept_and_a_second_start_adds_only_what_is_missing(searched) -> None:
    settings, out, found = searched
    again = tune(settings, out)
    assert again["trials"] == found["trials"]
    more = tune(TuneSettings(**{**vars(settings), "trials": 4}), out)
    assert more["trials"][:3] == found["trials"]
    assert len(more["trials"]) == 4


def test_the_picture_shows_search_and_schedules(searched) -> None:
    from tokred.report.tune_plot import tune_picture

    left, right = tune_picture(searched[2]).axes
    assert left.get_xlabel() == "trial"
    assert len(right.lines) == 2
