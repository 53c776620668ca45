"""What stands on the axes."""

from __future__ import annotations

import pytest
from sweeps import over_depth, sweep

from tokred.report.measured import explained, meaning, measured, values_of


def test_shares_are_shown_in_percent_of_something() -> None:
    rows = over_depth()["rows"]
    (panel,) = measured(rows)
    assert (panel.title, panel.unit) == ("gradient norm retained", "% of the clip's gradient norm")
    value, low, high = panel.get(rows[0]) or ()
    assert (panel.scale * value, panel.scale * low, panel.scale * high) == pytest.approx((70, 60, 80))
    assert (panel.levels, values_of(rows, curves=True)) == ({}, ["trajectory"])


def test_accuracies_know_the_unreduced_model() -> None:
    (panel,) = measured([row for row in sweep()["rows"] if row["status"] == "done"])
    assert (panel.title, panel.unit, panel.scale) == ("motion", "top-1, %", 100.0)
    assert set(panel.levels.values()) == {0.95}


def test_a_row_without_the_value_has_no_point() -> None:
    rows = over_depth()["rows"]
    (panel,) = measured(rows)
    lost = {"values": {"retained": {"value": None, "low": None, "high": None, "n": 0}}}
    assert panel.get(lost) is None
    assert panel.get({"values": {}}) is None


def test_a_strangers_value_keeps_its_name() -> None:
    known = meaning("my_value")
    assert (known.title, known.unit, known.scale) == ("my value", "mean over clips", 1.0)
    assert explained(["my_value"]) == ""
    assert "STA eq. 7" in explained(["retained"])
