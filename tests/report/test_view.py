from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tokred.report.view import Run, implied, label, setting

Results = dict[str, Any]


def test_unreduced_first_then_budgets_from_large_to_small_each_best_first(results: Results) -> None:
    run = Run(results)
    assert [g.budget for g in run.groups] == [None, 0.75, 0.5, 0.35]
    assert [r["method"] for r in run.groups[0].rows] == ["none"]
    for group in run.groups[1:]:
        qualities = [run.quality(r) for r in group.rows]
        assert qualities == sorted(qualities, reverse=True)


def test_the_order_does_not_depend_on_the_order_of_the_file(results: Results) -> None:
    before = [r["id"] for g in Run(results).groups for r in g.rows]
    results["rows"].reverse()
    assert [r["id"] for g in Run(results).groups for r in g.rows] == before


def test_a_mark_means_significant_after_holm_over_the_whole_table(results: Results) -> None:
    rows = [r for r in results["rows"] if r["method"] != "none"]
    for row in rows:
        for a in row["accuracy"].values():
            a["p"] = 0.5
    rows[0]["accuracy"]["motion"]["p"] = 0.0009
    rows[1]["accuracy"]["motion"]["p"] = 0.04  # small alone, not among 54 tests
    run = Run(results)
    assert len(run.adjusted) == 54
    marked = [(r["id"], s) for r in rows for s in run.label_sets if run.differs(r, s)]
    assert marked == [(rows[0]["id"], "motion")]
    assert run.adjusted_p(rows[0], "motion") == pytest.approx(54 * 0.0009)


def test_rows_without_a_result_do_not_count_as_tests(refused: Results) -> None:
    # 7 finished reduced rows, 2 label sets, one p missing.
    assert len(Run(refused).adjusted) == 13


def test_the_highest_of_a_budget_is_marked_and_ties_share_it(results: Results) -> None:
    at_half = [r for r in results["rows"] if r["budget"] == 0.5]
    for row in at_half:
        row["accuracy"]["motion"]["top1"] = 0.8 if row["method"] in ("grid", "tome") else 0.7
    run = Run(results)
    assert {r["method"] for r in at_half if run.is_highest(r, "motion")} == {"grid", "tome"}


def test_settings_taken_as_given_have_no_highest_because_they_do_not_cost_the_same(results: Results) -> None:
    for row in results["rows"]:
        row["budget"] = None
    run = Run(results)
    assert [g.title for g in run.groups] == ["Unreduced", "Settings as given (not at equal cost)"]
    assert not run.highest


def test_without_labels_agreement_ranks(unlabelled: Results) -> None:
    run = Run(unlabelled)
    assert not run.labelled
    assert run.quality(run.groups[1].rows[0]) == max(r["agreement"]["value"] for r in run.groups[1].rows)
    assert not run.adjusted


def test_what_has_no_result_comes_failed_refused_pending(refused: Results) -> None:
    refused["rows"].insert(0, {"method": "late", "status": "pending"})
    assert [r["status"] for r in Run(refused).rest] == ["failed", "refused", "pending"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, r"schema 2; this version reads schema 1"),
        ({"rows": None}, r"must be a list of dicts"),
        ({"rows": [{"id": "a"}]}, r"name their method"),
    ],
)
def test_what_cannot_be_read_is_refused(results: Results, change: Results, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Run({**results, **change})
    with pytest.raises(ValueError, match="must be a dict"):
        Run([results])  # type: ignore[arg-type]


def test_names_and_settings() -> None:
    assert setting({"method": "sta", "reducer": "sta:r=12,order=FB"}) == "r=12,order=FB"
    assert setting({"method": "none", "reducer": "none"}) == ""
    assert setting({"method": "mine", "reducer": "pkg.mod:Mine"}) == "pkg.mod:Mine"
    assert label({"method": "stts", "label": "STTS", "learned": True}) == "STTS (learned)"
    assert label({"method": "stts", "learned": True, "trained": True}) == "stts (trained)"
    assert label({"method": "stts", "learned": True, "trained": False}) == "stts (untrained)"
    assert label({"method": "sta", "learned": False, "trained": None}) == "sta"


def test_the_implied_speed_up_needs_no_timing() -> None:
    assert implied({"method": "a", "gmac_share": 0.5, "speed": None}) == 2.0
    assert implied({"method": "a", "gmac_share": None}) is None


def test_nothing_at_all_is_an_empty_run(make: Callable[..., Results]) -> None:
    run = Run({"schema": 1, "rows": []})
    assert run.groups == ()
    assert run.unreduced is None
    assert run.footnotes == ()
