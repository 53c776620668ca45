from __future__ import annotations

import copy
from typing import Any

from tokred.report.definitions import definitions, differences, legend, progress, reproduce, sentence
from tokred.report.view import Run

Results = dict[str, Any]


def test_one_sentence_says_what_was_compared(results: Results, unlabelled: Results) -> None:
    text = sentence(Run(results))
    for part in ("9 methods", "videomae_vit_nano", "1.23 GMAC", "1,000 clips", "75, 50 and 35 %"):
        assert part in text
    assert "without labels" in sentence(Run(unlabelled))


def test_budgets_by_the_clock_are_said_to_be_that(results: Results) -> None:
    assert "35 % of the unreduced multiply-adds" in sentence(Run(results))
    results["settings"]["budget_by"] = "time"
    assert "35 % of the unreduced time, as measured before the run" in sentence(Run(results))


def test_settings_are_counted_where_a_method_has_several(results: Results) -> None:
    results["settings"]["budgets"] = None
    assert "9 methods in 27 settings" in sentence(Run(results))


def test_an_unfinished_run_says_so(results: Results, incomplete: Results) -> None:
    assert progress(Run(results)) is None
    assert "10 of 28 rows finished" in str(progress(Run(incomplete)))


def test_marks_are_explained_only_where_they_occur(results: Results) -> None:
    text = "\n".join(legend(Run(results)))
    assert "papers print this number as GFLOPs" in text
    assert "* differs from the unreduced model" in text
    assert "54 tests" in text
    assert "not a proof of equality" in text
    for row in results["rows"]:
        for a in row["accuracy"].values():
            a["p"] = None if a["diff"] is None else 0.9
    assert "No row differs significantly" in "\n".join(legend(Run(results)))
    assert "Brackets" not in "\n".join(legend(Run(results), brackets=False))


def test_only_numbers_that_are_shown_are_defined(results: Results, unlabelled: Results) -> None:
    with_labels = dict(definitions([Run(results)]))
    assert {"GMAC, share", "Implied speed-up", "Top-1, 95 % interval", "Difference, p"} <= set(with_labels)
    assert "Wilson" in with_labels["Top-1, 95 % interval"]
    assert "McNemar" in with_labels["Difference, p"]
    without = dict(definitions([Run(unlabelled)]))
    assert "Feature distance" in without
    assert "Difference, p" not in without
    for row in unlabelled["rows"]:
        row |= {"budget": None, "speed": None}
    assert not {"Budget", "^", "Implied speed-up"} & set(dict(definitions([Run(unlabelled)])))
    assert set(dict(definitions([Run(results), Run(unlabelled)]))) == set(with_labels) | set(without)


def test_a_run_names_what_it_takes_to_do_it_again(results: Results) -> None:
    facts = dict(reproduce(Run(results)))
    assert facts["Weights digest"] == "9b1d4e0c77aa"
    assert facts["Data digest"] == "c0ffee12"
    assert facts["Budgets"] == "0.75, 0.5, 0.35"
    assert facts["Commit"] == "3f2a9c1 with uncommitted changes"
    assert "Checkpoint" not in facts


def test_joined_runs_say_where_they_differ(results: Results) -> None:
    other = copy.deepcopy(results)
    assert differences([Run(results), Run(other)]) == []
    other["data"]["digest"], other["environment"]["dtype"] = "else", "bfloat16"
    assert differences([Run(results), Run(other)]) == ["data", "number format"]
