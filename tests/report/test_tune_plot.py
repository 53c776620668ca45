"""The picture of a search."""

from __future__ import annotations

from tokred.report.tune_plot import tune_picture

OWN = {"spec": "a:r=1", "share": 0.5, "loss": 0.4, "tokens": [8, 8, 4]}


def test_trials_without_a_loss_are_left_out_and_the_best_falls() -> None:
    trials = [{"number": 0, "loss": 0.5}, {"number": 1, "loss": None}, {"number": 2, "loss": 0.3}]
    left, right = tune_picture({"own": OWN, "tuned": {**OWN, "tokens": [8, 6, 6]}, "trials": trials}).axes
    assert list(left.lines[0].get_ydata()) == [0.5, 0.3]
    assert list(left.lines[1].get_ydata()) == [0.5, 0.3]
    assert [list(line.get_ydata()) for line in right.lines] == [[8, 8, 4], [8, 6, 6]]


def test_a_search_that_found_nothing_still_shows_the_own_schedule() -> None:
    _, right = tune_picture({"own": OWN, "tuned": None, "trials": []}).axes
    assert len(right.lines) == 1
