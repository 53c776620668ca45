"""Ablation bars: differences to the first point at the same cost, and when they are not the right picture."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.colors import to_hex
from sweeps import curves, row, sweep

from tokred.report.looks import styles_in
from tokred.report.style import style_of
from tokred.report.sweep_bars import PALE, bars, grouped


def entry(to: str, ours: float, p: float, first: str = "FBF", budget: float = 0.5, **more: Any) -> dict[str, Any]:
    ends = {"low": ours - 0.02, "high": ours + 0.02, "p": p, "n": 200, "label": "motion", "ours": ours, "at": {}}
    where = {"budget": budget}
    return {"from": {"reducer.order": first, **where}, "to": {"reducer.order": to, **where}, **ends, **more}


def ablation(**more: Any) -> dict[str, Any]:
    """Three orders at two budgets, in the order of a grid."""
    rows = [
        row({"reducer.order": order, "budget": budget}, 0.9, gmac=budget * scale)
        for order, scale in (("FBF", 1.0), ("BBB", 1.01), ("BFB", 0.99))
        for budget in (0.5, 0.35)
    ]
    known = [entry(o, g, p, budget=b) for b in (0.5, 0.35) for o, g, p in (("BFB", 0.04, 0.01), ("BBB", -0.03, 0.2))]
    return sweep(rows=rows, axes=[["reducer.order"], ["budget"]], differences=known, **more)


def done(found: dict[str, Any]) -> list[Any]:
    return [one for one in found["rows"] if one["status"] == "done"]


def draw(found: dict[str, Any], shape: Any = "wide") -> Any:
    return bars(found, done(found), styles_in(found), shape)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_bars_stand_in_the_order_of_the_file_by_budget_and_begin_at_zero(shape) -> None:
    (panel,) = draw(ablation(), shape).axes
    names = [text.get_text().replace("\n", " ") for text in panel.get_yticklabels()]
    assert names == [f"order={order}, budget={b}" for b in ("0.5", "0.35") for order in ("FBF", "BBB", "BFB")]
    assert [patch.get_width() for patch in panel.patches] == pytest.approx([-3, 4, -3, 4])
    assert {patch.get_x() for patch in panel.patches} == {0.0}
    assert [patch.get_alpha() for patch in panel.patches] == [PALE, 1.0, PALE, 1.0]
    assert {to_hex(patch.get_facecolor()) for patch in panel.patches} == {style_of("sta").color}
    whiskers = [line.get_xdata() for line in panel.lines if len(line.get_xdata()) == 2 and len({*line.get_xdata()}) > 1]
    assert whiskers[0] == pytest.approx([-5, -1])
    assert panel.get_xlabel() == "difference in top-1, percentage points"
    places = panel.get_yticks()
    assert places[3] - places[2] > places[2] - places[1] == 1


def test_effects_of_older_results_do_as_well() -> None:
    found = sweep()
    (panel,) = draw(found).axes
    assert [patch.get_width() for patch in panel.patches] == pytest.approx([-4])
    assert draw(sweep(effects=[])) is None


def test_what_is_left_open_by_an_effect_names_the_point() -> None:
    found = ablation()
    del found["differences"]
    found["effects"] = [
        {**entry(o, 0.01, 0.5), "from": {"reducer.order": "FBF"}, "to": {"reducer.order": o}, "at": {"budget": b}}
        for b in (0.5, 0.35)
        for o in ("BBB", "BFB")
    ]
    assert [len(members) for members in grouped(found, done(found))] == [3, 3]


def test_where_the_cost_varies_there_are_no_bars() -> None:
    found = ablation()
    found["rows"][2]["gmac"] = 0.6
    assert draw(found) is None
    found["rows"][2]["gmac"] = None
    assert draw(found) is None
    assert draw(curves()) is None


def test_a_chain_or_a_point_that_nobody_speaks_of_is_no_ablation() -> None:
    chain = ablation()
    chain["differences"] = [
        entry("BBB", 0.1, 0.5, budget=b, first=f) | {"to": {"reducer.order": t, "budget": b}}
        for b in (0.5, 0.35)
        for f, t in (("FBF", "BBB"), ("BBB", "BFB"))
    ]
    assert draw(chain) is None
    silent = ablation()
    silent["differences"] = silent["differences"][:3]
    assert draw(silent) is None


def test_seeds_are_one_bar() -> None:
    found = ablation(seeds=[0, 1])
    again = [{**one, "point": {**one["point"], "seed": 1}} for one in found["rows"]]
    found["rows"] += again
    (panel,) = draw(found).axes
    assert panel.get_yticklabels()[0].get_text() == "order=FBF, budget=0.5"
    assert len(panel.patches) == 4


def test_measured_shares_are_differences_in_points_of_percent() -> None:
    found = ablation()
    for one in found["differences"]:
        one["label"] = "retained"
    (panel,) = draw(found).axes
    assert panel.get_xlabel() == "difference, percentage points"
    assert panel.get_title(loc="left") == "gradient norm retained"


def test_the_mean_over_frames_is_not_drawn_beside_the_whole_clip() -> None:
    found = ablation()
    both = [{**one, "label": name} for one in found["differences"] for name in ("retained", "retained_per_frame")]
    assert len(draw({**found, "differences": both}).axes) == 1
    alone = [one for one in both if one["label"] == "retained_per_frame"]
    assert len(draw({**found, "differences": alone}).axes) == 1
