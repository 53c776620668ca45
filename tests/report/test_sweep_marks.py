"""Marks: every point with its whole name, on an axis with a unit."""

from __future__ import annotations

import pytest
from matplotlib.colors import to_hex
from sweeps import over_depth, row, sweep

from tokred.report.looks import styles_in
from tokred.report.style import style_of
from tokred.report.sweep_marks import marks


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_long_names_of_two_seeds_are_told_apart(shape) -> None:
    rows = [row({"reducer": "sta:order=FBF,schedule=[64,32,16,8,4,2,1],similarity=query"}, 0.9) for _ in range(2)]
    for seed, one in enumerate(rows):
        one["point"]["seed"] = seed
    found = sweep(rows=rows, seeds=[0, 1], axes=[["reducer"]])
    (panel,) = marks(found, rows, styles_in(found), shape).axes
    names = ["".join(text.get_text().split()) for text in panel.get_yticklabels()]
    assert [name.endswith(f"seed={seed}") for seed, name in enumerate(names)] == [True, True]
    assert not any("…" in name for name in names)


def test_each_point_has_its_methods_mark_and_every_axis_its_unit() -> None:
    found = over_depth()
    figure = marks(found, found["rows"], styles_in(found))
    (panel,) = figure.axes
    assert panel.get_xlabel() == "% of the clip's gradient norm"
    drawn = [(line.get_marker(), to_hex(line.get_color())) for line in panel.lines if len(line.get_xdata()) == 1]
    assert drawn == [(style_of(name).marker, style_of(name).color) for name in ("none", "sta")]
