from __future__ import annotations

from typing import Any

from tokred.report.cards import cards
from tokred.report.style import styles_of
from tokred.report.view import Run

Results = dict[str, Any]


def _cards(results: Results) -> str:
    return cards(Run(results), styles_of(r["method"] for r in results["rows"]))


def test_the_unreduced_model_each_budget_and_the_run(results: Results) -> None:
    html = _cards(results)
    for title in ("Unreduced", "At 75 %", "At 50 %", "At 35 %", "This run"):
        assert f"<h2>{title}</h2>" in html
    assert "<b>93.1 %</b>" in html
    assert "<b>28</b> of 28" in html


def test_ties_are_counted(results: Results) -> None:
    for row in results["rows"]:
        if row["budget"] == 0.5:
            row["accuracy"]["motion"]["top1"] = 0.8
    assert "and 8 more" in _cards(results)


def test_failures_are_counted(refused: Results, unlabelled: Results) -> None:
    assert "<dt>failed</dt><dd><b>1</b></dd><dt>refused</dt><dd><b>1</b></dd>" in _cards(refused)
    assert "<b>3 files</b>" in _cards(unlabelled)
    assert "highest agreement" in _cards(unlabelled)


def test_an_empty_run_has_one_card() -> None:
    assert _cards({"schema": 1, "rows": []}).count('class="card"') == 1
