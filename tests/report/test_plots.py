from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import pytest

from tokred.report import plots
from tokred.report.canvas import Shape

Results = dict[str, Any]


def test_a_panel_for_each_label_set_with_named_axes(results: Results) -> None:
    figure = plots.quality(results)
    assert figure is not None
    titles = [a.get_title(loc="left") for a in figure.axes]
    assert titles == ["appearance", "motion"]
    assert figure.axes[0].get_ylabel() == "top-1, %"
    assert "GMAC (papers print this as GFLOPs)" in figure.get_supxlabel()
    labels = [t.get_text() for t in figure.legends[0].get_texts()]
    assert labels[0].startswith("Unreduced")
    assert len(labels) == 10


def test_intervals_are_drawn_where_they_were_measured(results: Results) -> None:
    figure = plots.quality(results)
    assert figure is not None
    rows = [r for r in results["rows"] if r["method"] != "none"]
    drawn = {tuple(round(float(y), 6) for y in line.get_ydata()) for line in figure.axes[1].lines}
    for row in rows:
        a = row["accuracy"]["motion"]
        assert (round(100 * a["low"], 6), round(100 * a["high"], 6)) in drawn


def test_without_labels_the_panels_are_agreement_and_feature_distance(unlabelled: Results) -> None:
    figure = plots.quality(unlabelled, "tall")
    assert figure is not None
    assert [a.get_title(loc="left") for a in figure.axes] == ["agreement", "feature distance"]


def test_the_speed_picture_has_the_diagonal_the_guide_and_every_method(results: Results) -> None:
    figure = plots.speedup(results)
    assert figure is not None
    left, right = figure.axes
    named = {str(line.get_label()): line for line in left.lines}
    x, y = named["as the multiply-adds imply"].get_data()
    assert list(x) == list(y)
    x, y = named["0.9x that"].get_data()
    assert list(y) == pytest.approx([0.9 * v for v in x])
    assert [t.get_text() for t in right.get_yticklabels()][:3] == ["STA", "ToMe", "EViT-style"]


def test_what_was_not_measured_is_not_drawn(results: Results) -> None:
    for row in results["rows"]:
        row["speed"] = None
    assert plots.speedup(results) is None
    assert plots.quality({"schema": 1, "rows": []}) is None
    results["rows"] = results["rows"][:1]
    assert plots.quality(results) is None


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_gaps_and_odd_names_are_no_obstacle(refused: Results, shape: Shape) -> None:
    refused["rows"][1] |= {"method": "$x", "label": "$bad \\math$ " + 60 * "x"}
    refused["rows"] = [r for r in refused["rows"] if r["method"] != "none"]  # not even the unreduced model
    for draw in (plots.quality, plots.speedup):
        figure = draw(refused, shape)
        assert figure is not None
        figure.draw_without_rendering()


def test_no_label_lies_on_another_one(results: Results) -> None:
    for draw in (plots.quality, plots.speedup):
        for shape in ("wide", "tall"):
            figure = draw(results, shape)
            assert figure is not None
            figure.draw_without_rendering()
            box = figure.bbox
            texts = [t for a in figure.axes for t in (a._left_title, a.xaxis.label, a.yaxis.label)]  # type: ignore[attr-defined]
            axes = [x for a in figure.axes for x in (a.xaxis, a.yaxis, *(c.xaxis for c in a.child_axes))]
            for axis in axes:  # ticks outside the view are kept by matplotlib but not drawn
                low, high = sorted(axis.get_view_interval())
                texts += [
                    t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label1.get_visible()
                ]
                texts += [
                    t.label2 for t in axis.get_major_ticks() if low <= t.get_loc() <= high and t.label2.get_visible()
                ]
            texts += [t for legend in figure.legends for t in legend.get_texts()]
            boxes = [t.get_window_extent() for t in texts if t.get_text() and t.get_visible()]
            assert all(b.x0 >= box.x0 - 1 and b.x1 <= box.x1 + 1 for b in boxes), (draw.__name__, shape)
            for i, a in enumerate(boxes):
                for b in boxes[i + 1 :]:
                    overlap = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
                    assert min(overlap) <= 1, (draw.__name__, shape, texts[i])


def test_drawing_leaves_no_global_state(make: Callable[..., Results]) -> None:
    import matplotlib.pyplot as plt

    before, backend = dict(mpl.rcParams), mpl.rcParams._get("backend")  # type: ignore[attr-defined]
    plots.quality(make(budgets=(0.5,)))
    assert dict(mpl.rcParams) == before
    assert mpl.rcParams._get("backend") == backend  # type: ignore[attr-defined]
    assert plt.get_fignums() == []
