"""Heatmaps: gradient norm by point and frame, overlap by pair of points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text
from sweeps import row, sweep

from tokred.report.canvas import png
from tokred.report.heatmaps import overlap, retention
from tokred.report.looks import styles_in
from tokred.report.style import style_of


def gradnorm(shares: dict[str, list[float | None]], seeds: tuple[int, ...] = (0,)) -> dict[str, Any]:
    rows = []
    for seed in seeds:
        for name, values in shares.items():
            numbers = {"value": values, "low": values, "high": values, "n": [9] * len(values)}
            one = row({"reducer": name}, 0.9, method=name, accuracy={}, values={"retained_per_frame": numbers})
            one["point"]["seed"] = seed
            rows.append(one)
    return sweep(rows=rows, effects=[], axes=[["reducer"]], seeds=list(seeds))


def drawn(found: dict[str, Any], draw: Any, shape: str = "wide") -> Any:
    return draw(found, found["rows"], styles_in(found), shape)


def words(panel: Any) -> list[str]:
    return [child.get_text() for child in panel.get_children() if isinstance(child, Text) and child.get_text()]


def fields(panel: Any) -> np.ndarray:
    return np.ma.filled(panel.collections[0].get_array().astype(float), np.nan)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_retention_has_a_row_for_each_point_and_a_column_for_each_frame(shape) -> None:
    found = gradnorm({"none": [1.0, 1.0], "sta": [0.25, 0.5]}, seeds=(0, 1))
    panel, scale = drawn(found, retention, shape).axes
    assert fields(panel).tolist() == [[100, 100], [25, 50]] * 2
    named = [text.get_text().replace("\n", " ") for text in panel.get_yticklabels()]
    assert named == ["none, seed=0", "sta, seed=0", "none, seed=1", "sta, seed=1"]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["0", "1"]
    assert "% of the frame's gradient norm" in (scale.get_ylabel() + scale.get_xlabel())
    assert panel.collections[0].get_clim() == (0, 100)
    marks = [(line.get_marker(), to_hex(line.get_markerfacecolor())) for line in panel.lines]
    assert marks == [(style_of(m).marker, style_of(m).color) for m in ("none", "sta")] * 2


def test_a_frame_of_which_nothing_is_known_is_said_to_be_so() -> None:
    found = gradnorm({"sta": [0.25, None], "tome": [0.5]})
    (panel, _) = drawn(found, retention).axes
    assert np.isnan(fields(panel)[:, 1]).all()
    assert [word for word in words(panel) if word in ("25", "50", "–")] == ["25", "50", "–", "–"]


def test_many_frames_are_fields_without_numbers_and_not_every_one_is_counted() -> None:
    found = gradnorm({"sta": [0.5] * 64})
    (panel, _) = drawn(found, retention).axes
    assert "50" not in words(panel)
    assert len(panel.get_xticks()) == 16


def test_without_the_measure_there_is_no_picture() -> None:
    assert drawn(sweep(), retention) is None
    assert drawn(gradnorm({"sta": []}), retention) is None
    assert drawn(sweep(), overlap) is None
    assert drawn(sweep(overlap=[]), overlap) is None


def pairs(**more: Any) -> dict[str, Any]:
    """Three points, their pairs in any order, one of them not known."""
    given = [("sta", "tome", 0.5), ("mine", "sta", 0.25), ("mine", "tome", None)]
    known = [{"a": a, "b": b, "iou": v, "rand": None, "spearman": v and -v, "kendall": None} for a, b, v in given]
    rows = [row({"reducer": name}, 0.9, method=name) for name in ("sta", "tome", "mine")]
    return sweep(rows=rows, effects=[], axes=[["reducer"]], overlap=known, **more)


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_overlap_has_a_panel_for_each_measure_that_is_known_and_a_field_for_each_pair(shape) -> None:
    panels = [panel for panel in drawn(pairs(), overlap, shape).axes if panel.get_title(loc="left")]
    assert [panel.get_title(loc="left") for panel in panels] == ["kept patches, IoU", "ranks of clips, Spearman"]
    for panel, sign in zip(panels, (1, -1), strict=True):
        table = fields(panel)
        assert (table[0, 0], table[1, 0]) == (sign * 0.5, sign * 0.25)
        assert np.isnan([table[0, 1], table[1, 1]]).all()
        # The pair that is not known has a dash; above the diagonal nothing is asked.
        assert words(panel).count("–") == 1
        assert panel.get_xlabel() == "1 = sta"
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["tome  2", "mine  3"]
    assert [panel.collections[0].get_clim() for panel in panels] == [(0, 1), (-1, 1)]


def test_points_of_several_seeds_have_their_methods_mark_in_the_overlap() -> None:
    panel = drawn(pairs(seeds=[0, 1]), overlap).axes[0]
    assert [to_hex(line.get_markerfacecolor()) for line in panel.lines] == [
        style_of(name).color for name in ("tome", "mine")
    ]


def test_labels_from_outside_do_nothing() -> None:
    found = pairs()
    found["overlap"][0]["a"] = found["overlap"][1]["b"] = "$\\frac{$\x1b[2J\n"
    assert png(drawn(found, overlap)).startswith(b"\x89PNG")
