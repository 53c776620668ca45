"""What the pictures show, before anything is drawn: lines, measures, sideways shifts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tokred.report import view
from tokred.report.style import Style, styles_of, variant
from tokred.report.text import clean, number, shorten
from tokred.report.view import Row, Run, accuracy, agreement

Point = tuple[float, float | None, float | None]  # value and the ends of its interval


@dataclass(frozen=True)
class Line:
    """One method over its budgets.

    Args:
        label: its name in the legend; style: how it is drawn; rows: its results, cheapest first.
    """

    label: str
    style: Style
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Measure:
    """What the vertical axis of one panel shows.

    Args:
        title: above the panel; axis: with the unit; get: the value of a row, None where it was not measured;
        reference: the unreduced model's value where it needs no measurement.
    """

    title: str
    axis: str
    get: Callable[[Row], Point | None]
    reference: float | None = None


def lines_of(run: Run, styles: Mapping[str, Style] | None = None) -> list[Line]:
    """Return the reduced rows as lines, in the order in which the results name them."""
    styles = styles or styles_of(r["method"] for r in run.rows)
    series: dict[tuple[str, str, int], list[Row]] = {}
    seen: dict[tuple[str, str, float], int] = {}
    for row in run.done:
        if row["method"] == "none" or number(row.get("gmac")) is None:
            continue
        name, budget, copy = view.label(row), number(row.get("budget")), 0
        if budget is not None:
            # Two settings of one method at one budget are two lines: joined they would draw a zigzag.
            copy = seen.get((row["method"], name, budget), 0)
            seen[row["method"], name, budget] = copy + 1
        series.setdefault((row["method"], name, copy), []).append(row)
    repeated = {(method, name) for method, name, copy in series if copy}
    found, drawn = [], dict[str, int]()
    for (method, name, _), rows in series.items():
        drawn[method] = drawn.get(method, -1) + 1
        text = f"{name} ({view.setting(rows[0])})" if (method, name) in repeated else name
        found.append(
            Line(
                shorten(text, 32), variant(styles[method], drawn[method]), tuple(sorted(rows, key=lambda r: r["gmac"]))
            )
        )
    return found


def measures(run: Run) -> list[Measure]:
    """Return the panels of the first picture: a label set each, or without labels agreement and feature distance."""
    if run.labelled:
        return [Measure(shorten(clean(name), 26), "top-1, %", _top1(name)) for name in run.label_sets]
    return [
        Measure("agreement", "first answer as unreduced, %", _agreement, 100.0),
        Measure("feature distance", "relative L2 distance to unreduced", _distance, 0.0),
    ]


def _top1(name: str) -> Callable[[Row], Point | None]:
    def get(row: Row) -> Point | None:
        a = accuracy(row, name)
        return _point(a.get("top1"), a.get("low"), a.get("high"), 100)

    return get


def _agreement(row: Row) -> Point | None:
    a = agreement(row)
    return _point(a.get("value"), a.get("low"), a.get("high"), 100)


def _distance(row: Row) -> Point | None:
    return _point(row.get("feature_distance"), None, None, 1)


def _point(value: object, low: object, high: object, scale: float) -> Point | None:
    x, a, b = number(value), number(low), number(high)
    return None if x is None else (scale * x, None if a is None else scale * a, None if b is None else scale * b)


def spread(run: Run, lines: Sequence[Line]) -> float:
    """Return how wide, in GMAC, the points of one budget are spread sideways.

    Methods at one budget cost the same, so their intervals would lie on top of each other. Without budgets, or with a
    single line, nothing is moved: 0.
    """
    full = number(run.unreduced.get("gmac")) if run.unreduced else number(run.part("backbone").get("gmac"))
    places = sorted({b for line in lines for r in line.rows if (b := number(r.get("budget"))) is not None} | {1.0})
    if len(places) < 2 or full is None or len(lines) < 2:
        return 0.0
    step = 0.015  # of the unreduced cost, between two methods
    return full * min(0.6 * min(b - a for a, b in pairwise(places)), 0.09, step * (len(lines) - 1))
