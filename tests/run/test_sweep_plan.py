"""The cells of a plan, each once."""

from __future__ import annotations

from tokred.run.sweep_plan import PlannedCell, Point, SweepPlan


def test_cells_are_wanted_once_and_the_unreduced_ones_first() -> None:
    a, b = PlannedCell(Point({"seed": 0}), id="a"), PlannedCell(Point({"seed": 0}), id="b")
    left_out = PlannedCell(Point({"seed": 0}, "known"))
    plan = SweepPlan("nano", (a, left_out, b, a), (PlannedCell(Point({}), id="b"),))
    assert list(plan.wanted) == ["b", "a"]
    assert plan.wanted["b"].point.values == {}
