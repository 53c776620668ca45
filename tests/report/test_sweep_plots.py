"""Which picture a sweep gets, and that it shows every point."""

from __future__ import annotations

import pytest
from sweeps import curves, over_depth, sweep

from tokred.report.sweep_plots import pictures


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_an_ablation_is_drawn_point_by_point(shape) -> None:
    drawn = pictures(sweep(), shape)
    assert list(drawn) == ["points"]
    (panel,) = drawn["points"].axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["order=FBF", "order=BBB"]
    xs = [line.get_xdata()[0] for line in panel.lines if len(line.get_xdata()) == 1]
    assert xs == pytest.approx([90.0, 86.0])


def test_strengths_are_drawn_as_curves_one_for_each_method() -> None:
    drawn = pictures(curves())
    assert list(drawn) == ["curves"]
    (panel,) = drawn["curves"].axes
    lines = [line for line in panel.lines if len(line.get_xdata()) == 4 and line.get_linestyle() != "None"]
    assert len(lines) == 2
    assert list(lines[0].get_xdata()) == [0.3, 0.5, 0.7, 0.9]
    assert lines[0].get_color() != lines[1].get_color()


def test_values_for_every_block_are_drawn_over_depth_and_single_ones_as_points() -> None:
    drawn = pictures(over_depth())
    assert list(drawn) == ["points", "depth"]
    assert drawn["depth"].axes[0].get_xlabel() == "block"


def test_measures_of_one_point_are_all_drawn() -> None:
    found = over_depth()
    other = [{**row, "values": {"retained_per_frame": {**row["values"]["trajectory"]}}} for row in found["rows"]]
    drawn = pictures({**found, "rows": [*found["rows"], *other]})
    assert [len(panel.lines) for panel in drawn["depth"].axes] == [2, 2]


def test_points_on_other_clips_have_an_unreduced_model_of_their_own() -> None:
    shared, own = sweep(), sweep()
    own["rows"][1]["accuracy"]["motion"]["diff"] -= 0.1
    strokes = [
        [
            line
            for line in pictures(found)["points"].axes[0].lines
            if len({*line.get_xdata()}) == 1 and len(line.get_xdata()) == 2
        ]
        for found in (shared, own)
    ]
    assert [len(lines) for lines in strokes] == [1, 2]


def test_nothing_finished_is_no_picture() -> None:
    found = sweep()
    for row in found["rows"]:
        row["status"] = "pending"
    assert pictures(found) == {}
