"""Which picture a sweep gets, and that it shows every point."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.colors import to_hex
from sweeps import curves, over_depth, row, sweep

from tokred.report.style import style_of
from tokred.report.sweep_plots import CAPTIONED, caption, pictures


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_an_ablation_is_drawn_point_by_point(shape) -> None:
    drawn = pictures(sweep(), shape)
    assert list(drawn) == ["points", "ablation"]
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
    panel = drawn["depth"].axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("block", "sum of cosine similarities")


def test_measures_of_one_point_are_all_drawn() -> None:
    found = over_depth()
    other = [{**row, "values": {"retained_per_frame": {**row["values"]["trajectory"]}}} for row in found["rows"]]
    drawn = pictures({**found, "rows": [*found["rows"], *other]})
    assert [len(panel.lines) for panel in drawn["depth"].axes] == [2, 2]
    assert "retention" in drawn


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
    for one in found["rows"]:
        one["status"] = "pending"
    assert pictures(found) == {}


def seeded() -> dict[str, Any]:
    """Three methods, one of them a stranger's, with two seeds each."""
    rows = []
    for seed in (0, 1):
        for one in over_depth()["rows"]:
            rows.append({**one, "point": {**one["point"], "seed": seed}})
        rows.append({**rows[-1], "point": {"reducer": "mine", "seed": seed}, "method": "mine"})
    return sweep(rows=rows, effects=[], axes=[["reducer"]], seeds=[0, 1])


def test_a_method_has_its_colour_in_every_picture_whatever_else_is_drawn() -> None:
    found = seeded()
    drawn = pictures(found)
    expected = [style_of(name) for name in ("none", "sta", "mine")] * 2
    lines = drawn["depth"].axes[0].lines
    assert [(line.get_color(), line.get_marker()) for line in lines] == [(s.color, s.marker) for s in expected]
    # Seeds are told apart by their line and filling.
    assert [str(line._unscaled_dash_pattern) for line in lines[:3]] == [str((0, None))] * 3
    assert len({str(line._unscaled_dash_pattern) for line in (lines[1], lines[4])}) == 2
    assert len({line.get_fillstyle() for line in (lines[1], lines[4])}) == 2
    marks = [line for line in drawn["points"].axes[0].lines if len(line.get_xdata()) == 1]
    assert [(to_hex(line.get_color()), line.get_marker()) for line in marks] == [(s.color, s.marker) for s in expected]


def test_seeds_of_a_curve_are_marks_about_one_line_through_their_means() -> None:
    found = curves()
    again = [
        {**one, "point": {**one["point"], "seed": 1}, "accuracy": row({}, 0.5)["accuracy"]} for one in found["rows"]
    ]
    both = {**found, "rows": [*found["rows"], *again], "seeds": [0, 1]}
    (panel,) = pictures(both)["curves"].axes
    lines = [line for line in panel.lines if len(line.get_xdata()) == 4 and line.get_linestyle() != "None"]
    assert [list(line.get_xdata()) for line in lines] == [[0.3, 0.5, 0.7, 0.9]] * 2
    first = found["rows"][0]["accuracy"]["motion"]["top1"]
    assert lines[0].get_ydata()[-1] == pytest.approx(100 * (first + 0.5) / 2)
    assert [line.get_color() for line in lines] == [style_of(name).color for name in ("sta", "tome")]


def test_captions_say_what_the_axes_mean() -> None:
    assert "STA eq. 7" in caption("points", over_depth())
    assert "STA eq. 6" in caption("depth", over_depth())
    assert caption("points", sweep()) == CAPTIONED["points"]
    assert caption("overlap", sweep(overlap_ranks="<patches>")).endswith("They are ranked by <patches>.")
