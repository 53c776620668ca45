"""Every point of a sweep as a mark with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, arranged, looking, marker, new_figure
from tokred.report.looks import lines_in, wrapped
from tokred.report.measured import Measured, Point, Row, measured
from tokred.report.style import INK, Style
from tokred.report.sweep_table import describe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
NAMES: dict[Shape, int] = {"wide": 44, "tall": 24}
"""Characters in a line of a point's name beside a panel."""


def marks(found: Found, rows: Sequence[Row], styles: Mapping[str, Style], shape: Shape = "wide") -> Figure | None:
    """A mark with its 95 % interval for each point, a panel for each label set or measured value. No bars: they would
    have to begin at zero.

    Args:
        rows: those to be drawn; styles: by method.
    Returns:
        The figure; None where nothing was measured.
    """
    panels = list(measured(rows))
    if not panels:
        return None
    names = list(dict.fromkeys(describe(row["point"], found) for row in rows))
    shown = [wrapped(name, NAMES[shape]) for name in names]
    with looking():
        height = 0.2 * lines_in(shown) + 0.17 * len(names) + 1.5
        down, across = arranged(len(panels), shape)
        figure = new_figure(shape, max(2.4, height) * down)
        axes = figure.subplots(down, across, squeeze=False, sharey=shape == "wide").flatten().tolist()
        for panel in axes[len(panels) :]:
            panel.set_visible(False)
        for panel, one in zip(axes, panels):
            drawn = [(row, names.index(describe(row["point"], found)), p) for row in rows if (p := one.get(row))]
            _marks(panel, drawn, styles, one.scale)
            _unreduced(panel, [(row, place) for row, place, _ in drawn], one)
            panel.set_title(one.title)
            panel.set_xlabel(one.unit)
            panel.set_yticks(range(len(names)), shown, fontsize=9 if shape == "wide" else 8)
            panel.set(ylim=(len(names) - 0.4, -0.6))
            panel.tick_params(axis="y", length=0)
            panel.grid(False, axis="y")
        if any(one.levels for one in panels):
            from matplotlib.lines import Line2D

            figure.legend(
                handles=[Line2D([], [], color=INK, lw=1.1, label="unreduced, on the same clips")],
                loc="outside lower center",
                fontsize=8.5,
            )
    return figure


def _marks(panel: Axes, drawn: Sequence[tuple[Row, int, Point]], styles: Mapping[str, Style], scale: float) -> None:
    seen: dict[int, int] = {}
    for row, place, (value, low, high) in drawn:
        shift = 0.16 * seen.get(place, 0)
        seen[place] = seen.get(place, 0) + 1
        style = styles[row["method"]]
        if low is not None and high is not None:
            panel.plot([scale * low, scale * high], [place + shift] * 2, color=style.color, lw=5, alpha=0.3, zorder=2)
        panel.plot([scale * value], [place + shift], ls="none", zorder=3, **marker(style))


def _unreduced(panel: Axes, drawn: Sequence[tuple[Row, int]], one: Measured) -> None:
    """The unreduced model: one line where all points share it, else a stroke beside each point."""
    if len(set(one.levels.values())) == 1:
        panel.axvline(one.scale * next(iter(one.levels.values())), color=INK, lw=1.1, zorder=1)
        return
    for row, at in drawn:
        level = one.levels.get(row["cell"])
        if level is not None:
            panel.plot([one.scale * level] * 2, [at - 0.4, at + 0.4], color=INK, lw=1.4, zorder=2)
