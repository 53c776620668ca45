"""The two pictures of a comparison: quality against cost, and speed-up against what the cost implies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, draw, handle, legend, looking, marker, new_figure
from tokred.report.series import Line, Measure, Point, lines_of, measures, spread
from tokred.report.style import FAINT, INK, KNOWN, Style
from tokred.report.text import number, percent, shorten
from tokred.report.view import Row, Run, implied, speed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Styles = Mapping[str, Style]
COST = "multiply-adds per clip, GMAC (papers print this as GFLOPs)"
GUIDE = 0.9  # share of the implied speed-up that a good implementation reaches


def quality(results: Mapping[str, Any], shape: Shape = "wide", styles: Styles | None = None) -> Figure | None:
    """Draw accuracy against cost, a panel for each label set; without labels agreement and feature distance.

    Args:
        results: as read from results.json; shape: "wide" for a desktop, "tall" for a phone;
        styles: by method, where several runs share them.

    Returns:
        The figure, or None where no reduced row was measured.
    """
    run = Run(results)
    lines = lines_of(run, styles)
    shown = [m for m in measures(run) if any(m.get(r) for line in lines for r in line.rows)]
    if not shown:
        return None
    width = spread(run, lines)
    with looking():
        figure, panels = _panels(len(shown), shape, len(lines) + 1)
        for panel, measure in zip(panels, shown):
            _reference(panel, run, measure)
            for i, line in enumerate(lines):
                shift = width * (i / (len(lines) - 1) - 0.5) if width else 0.0
                draw(panel, line.style, [(r["gmac"] + shift, p) for r in line.rows if (p := measure.get(r))])
            panel.set_title(measure.title)
            panel.set_ylabel(measure.axis)
            _budgets(panel, run, width)
        note = "bars: 95 % interval" + ("; a shaded strip is one budget, spread sideways" if width else "")
        if shape == "wide":
            figure.supxlabel(f"{run.words(COST)}\n{note}", fontsize=9.5, x=0.4)
        else:
            panels[-1].set_xlabel(f"{run.words(COST)}\n{note}", fontsize=8)
        band = "Unreduced (band: 95 %)" if run.labelled else "Unreduced"
        legend(figure, lines, shape, [handle(KNOWN["none"], band)])
    return figure


def speedup(results: Mapping[str, Any], shape: Shape = "wide", styles: Styles | None = None) -> Figure | None:
    """Draw the measured speed-up against the one that the multiply-adds imply, and their ratio by method.

    Args:
        results, shape, styles: as for `quality`.

    Returns:
        The figure, or None where no time was measured.
    """
    run = Run(results)
    timed = [
        Line(line.label, line.style, rows)
        for line in lines_of(run, styles)
        if (rows := tuple(r for r in line.rows if _times(r)))
    ]
    if not timed:
        return None
    with looking():
        tall = 0.34 * len(timed) + 1.2
        figure = new_figure(shape, max(4.6, tall) if shape == "wide" else 3.9 + tall)
        if shape == "wide":
            left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
        else:
            # Two layouts: the names beside the lower panel would otherwise push the upper one aside.
            (upper,), (lower,) = figure.subfigures(2, 1, squeeze=False, height_ratios=[3.7, tall])
            left, right = upper.subplots(), lower.subplots()
        _against(left, timed)
        _ratio(right, timed, shape)
    return figure


def _times(row: Row) -> tuple[float, Point] | None:
    """Return the implied speed-up, and the measured one with its interval."""
    s, x = speed(row), implied(row)
    value, low, high = (number(s.get(k)) for k in ("speedup", "speedup_low", "speedup_high"))
    return None if value is None or x is None else (x, (value, low, high))


def _against(panel: Axes, lines: Sequence[Line]) -> None:
    points = {line.label: [t for r in line.rows if (t := _times(r))] for line in lines}
    reached = [v for p in points.values() for x, values in p for v in (x, *values) if v is not None]
    bottom, top = min(0.95, 0.95 * min(reached)), 1.06 * max(reached)
    panel.plot([bottom, top], [bottom, top], color=INK, lw=1.2, zorder=1, label="as the multiply-adds imply")
    slack = [GUIDE * bottom, GUIDE * top]
    panel.plot([bottom, top], slack, color=FAINT, lw=1.2, ls=(0, (4, 3)), zorder=1, label=f"{GUIDE:g}x that")
    for line in lines:
        draw(panel, line.style, points[line.label], line=False)
    panel.set(xlim=(bottom, top), ylim=(bottom, top), ylabel="measured speed-up", xlabel="implied speed-up")
    panel.set_title("speed-up")
    panel.xaxis.set_major_formatter("{x:g}x")
    panel.yaxis.set_major_formatter("{x:g}x")
    panel.legend(loc="upper left", handlelength=1.6)


def _ratio(panel: Axes, lines: Sequence[Line], shape: Shape) -> None:
    """Draw a row for each method and in it a point for each cost: it tells apart what overlaps in the other panel."""
    for i, line in enumerate(lines):
        points = [t for r in reversed(line.rows) if (t := _times(r))]
        for k, (x, (value, low, high)) in enumerate(points):
            y = i + (0.26 * (2 * k / (len(points) - 1) - 1) if len(points) > 1 else 0.0)
            if low is not None and high is not None:
                panel.plot([low / x, high / x], [y, y], color=line.style.color, lw=1.1, alpha=0.6, zorder=2)
            panel.plot([value / x], [y], ls="none", zorder=3, **marker(line.style, 0.88))
    panel.axvline(1, color=INK, lw=1.2, zorder=1)
    panel.axvline(GUIDE, color=FAINT, lw=1.2, ls=(0, (4, 3)), zorder=1)
    panel.set_yticks(range(len(lines)), [shorten(line.label, 32 if shape == "wide" else 22) for line in lines])
    panel.set(ylim=(len(lines) - 0.4, -0.6))
    panel.set_title("measured / implied")
    several = any(len(line.rows) > 1 for line in lines)
    note = "; in each row the lightest reduction on top" if shape == "wide" else "; lightest reduction on top"
    panel.set_xlabel("ratio" + (note if several else ""))
    panel.tick_params(axis="y", length=0)
    panel.grid(False, axis="y")


def _panels(count: int, shape: Shape, entries: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels and room for a legend of `entries` lines."""
    across = 1 if shape == "tall" else 2 if count == 4 else min(count, 3)
    down = -(-count // across)
    height = max(4.2 * down + 0.4, 0.24 * entries + 0.6) if shape == "wide" else 3.2 * down + 0.5 + 0.1 * entries
    figure = new_figure(shape, height)
    panels = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def _reference(panel: Axes, run: Run, measure: Measure) -> None:
    """Draw the unreduced model as a line over the whole width, with its interval as a band."""
    point = measure.get(run.unreduced) if run.unreduced and measure.reference is None else None
    level = measure.reference if point is None else point[0]
    if level is None:
        return
    panel.axhline(level, color=INK, lw=1.1, zorder=1)
    if point and point[1] is not None and point[2] is not None:
        panel.axhspan(point[1], point[2], color=INK, alpha=0.07, lw=0, zorder=0)
    cost = number(run.unreduced.get("gmac")) if run.unreduced else None
    if cost is not None:
        draw(panel, KNOWN["none"], [(cost, (level, None, None))])


def _budgets(panel: Axes, run: Run, width: float) -> None:
    """Shade what belongs to one budget, and name it above the panel as a share of the unreduced model."""
    full = number(run.unreduced.get("gmac")) if run.unreduced else None
    budgets = [g.budget for g in run.groups if g.budget is not None]
    if full is None or not budgets:
        return
    if width:
        panel.grid(False, axis="x")
        for budget in budgets:
            middle, half = budget * full, 0.5 * width + 0.02 * full
            panel.axvspan(middle - half, middle + half, color="#0072b2", alpha=0.055, lw=0, zorder=0)
    ticks = panel.secondary_xaxis("top")
    named = [1.0]
    for budget in budgets:  # from large to small; a name that would run into the one before it is left out
        if named[-1] - budget > 0.13 * (1.05 - min(budgets)):
            named.append(budget)
    ticks.set_xticks([b * full for b in named], labels=[f"{percent(b, 0)} %" for b in named])
    ticks.tick_params(length=0, labelsize=8.5, labelcolor="#5a606b")
    ticks.spines["top"].set_visible(False)
