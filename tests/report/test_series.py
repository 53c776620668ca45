from __future__ import annotations

import copy
from typing import Any

import pytest

from tokred.report.series import lines_of, measures, spread
from tokred.report.view import Run

Results = dict[str, Any]


def test_a_line_for_each_method_cheapest_first(results: Results) -> None:
    lines = lines_of(Run(results))
    assert [line.label for line in lines][:2] == ["STA", "ToMe"]
    assert len(lines) == 9
    for line in lines:
        costs = [r["gmac"] for r in line.rows]
        assert costs == sorted(costs)
        assert len(costs) == 3


def test_two_settings_of_a_method_at_one_budget_are_two_lines(results: Results) -> None:
    for row in [r for r in results["rows"] if r["method"] == "sta"]:
        other = copy.deepcopy(row)
        other |= {"id": row["id"] + "b", "reducer": "sta:order=BF"}
        results["rows"].append(other)
    lines = [line for line in lines_of(Run(results)) if line.label.startswith("STA")]
    assert len(lines) == 2
    assert lines[0].style.color == lines[1].style.color
    assert lines[0].style.fill != lines[1].style.fill
    assert all(len({r["budget"] for r in line.rows}) == 3 for line in lines)
    assert lines[1].label == "STA (order=BF)"


def test_rows_without_cost_are_not_drawn(refused: Results) -> None:
    labels = [line.label for line in lines_of(Run(refused))]
    assert "Grid" not in labels
    assert "EViT-style" not in labels


def test_a_panel_for_each_label_set_or_for_what_needs_no_labels(results: Results, unlabelled: Results) -> None:
    assert [m.title for m in measures(Run(results))] == ["appearance", "motion"]
    panels = measures(Run(unlabelled))
    assert [m.title for m in panels] == ["agreement", "feature distance"]
    assert panels[0].get(unlabelled["rows"][1]) == pytest.approx((99.0, 96.0, 100.0), abs=0.1)
    assert panels[1].get({"feature_distance": float("nan")}) is None


def test_points_of_one_budget_are_spread_but_never_into_the_next(results: Results) -> None:
    run = Run(results)
    width = spread(run, lines_of(run))
    assert 0 < width < (0.5 - 0.35) * results["backbone"]["gmac"]


def test_nothing_is_moved_where_costs_differ_anyway(results: Results) -> None:
    for row in results["rows"]:
        row["budget"] = None
    run = Run(results)
    assert spread(run, lines_of(run)) == 0.0
