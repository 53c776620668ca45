"""The pictures of a sweep: which it gets, curves against cost where strengths vary, curves over depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, arranged, draw, looking, marker, new_figure
from tokred.report.heatmaps import overlap, retention
from tokred.report.looks import legend_height, looks, put_legend, styles_in
from tokred.report.measured import Measured, Row, explained, meaning, measured, values_of
from tokred.report.style import INK, Style, line_style
from tokred.report.sweep_bars import bars
from tokred.report.sweep_marks import marks
from tokred.report.sweep_table import describe
from tokred.report.text import clean, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
Styles = Mapping[str, Style]
CAPTIONED = {
    "points": "Every point of the grid with its 95 % interval; the axis does not begin at zero.",
    "ablation": "The difference of each point to the first one at the same cost, on the same clips, with its 95 % "
    "interval.",
    "curves": "Quality against multiply-adds per clip, with 95 % intervals.",
    "depth": "Over the blocks of the backbone (or the frames of a clip), means over clips with 95 % intervals.",
    "retention": "Share of the answer's gradient norm that the kept tokens carry, in each frame of tokens (STA eq. 7), "
    "means over clips; kept at random they would carry the share of patches kept.",
    "overlap": "How much every two points have in common, means over clips: the patches that both keep as a share of "
    "those that either keeps (IoU), the groups that they merge (adjusted Rand index), and how alike they rank the "
    "clips (Spearman, Kendall).",
}
"""What every picture shows, by its name."""

STRENGTHS = 3
"""So many different costs in one series make a curve; fewer are marks."""


def pictures(found: Found, shape: Shape = "wide", styles: Styles | None = None) -> dict[str, Figure]:
    """All pictures of a sweep by file name, those of `CAPTIONED` that it has data for.

    Args:
        found: as read from sweep.json; shape: "wide" for a desktop, "tall" for a phone;
        styles: by method, where several runs share them.
    """
    styles = styles_in(found) if styles is None else styles
    rows = [row for row in found["rows"] if row["status"] == "done"]
    varied = _is_curves([row for row in rows if number(row.get("gmac")) is not None], found)
    made = {
        # Where strengths vary every series is better shown as a curve.
        "points": None if varied else marks(found, rows, styles, shape),
        "ablation": None if varied else bars(found, rows, styles, shape),
        "curves": curves(found, shape, styles) if varied else None,
        "depth": depth(found, shape, styles),
        "retention": retention(found, rows, styles, shape),
        "overlap": overlap(found, rows, styles, shape),
    }
    return {name: figure for name, figure in made.items() if figure is not None}


def caption(name: str, found: Found) -> str:
    """What a picture of a sweep shows, with what its axes mean."""
    rows = [row for row in found["rows"] if row["status"] == "done"]
    shown = {"points": values_of(rows, curves=False), "depth": values_of(rows, curves=True)}
    by = (
        f" They are ranked by {clean(found['overlap_ranks'])}."
        if name == "overlap" and found.get("overlap_ranks")
        else ""
    )
    return f"{CAPTIONED[name]}{by} {explained(shown.get(name, []))}".strip()


def curves(found: Found, shape: Shape = "wide", styles: Styles | None = None) -> Figure | None:
    """Quality against multiply-adds, a line for each series; None where there are fewer than three strengths."""
    rows = [row for row in found["rows"] if row["status"] == "done" and number(row.get("gmac")) is not None]
    panels = list(measured(rows))
    if not panels or not _is_curves(rows, found):
        return None
    series = _series(rows, found)
    drawn = looks(series, styles_in(found) if styles is None else styles)
    shared = [len(set(one.levels.values())) == 1 for one in panels]
    with looking():
        figure, axes = _panels(len(panels), shape, list(series))
        for panel, one, level in zip(axes, panels, shared):
            for name, members in series.items():
                _curve(panel, drawn[name], members, one)
            if level:
                panel.axhline(one.scale * next(iter(one.levels.values())), color=INK, lw=1.1, zorder=1)
            panel.set_title(one.title)
            panel.set_ylabel(one.unit)
            panel.locator_params(axis="x", nbins=5)  # more touch each other where costs are near each other
        cost = "multiply-adds per clip, GMAC (papers print this as GFLOPs)"
        if shape == "wide":
            figure.supxlabel(cost, fontsize=10, x=0.42)
        else:
            axes[-1].set_xlabel(cost, fontsize=8.5)
        put_legend(figure, drawn, shape, unreduced=any(shared))
    return figure


def _curve(panel: Axes, style: Style, members: Sequence[Row], one: Measured) -> None:
    """The marks of a series, and a line through the means of those that differ in their seed alone."""
    points = [(row, point) for row in members if (point := one.get(row))]
    together: dict[str, list[tuple[float, float]]] = {}
    for row, (value, _, _) in points:
        same = str(sorted((key, str(v)) for key, v in row["point"].items() if key != "seed"))
        together.setdefault(same, []).append((row["gmac"], one.scale * value))
    means = sorted(tuple(sum(axis) / len(axis) for axis in zip(*found)) for found in together.values())
    panel.plot(*zip(*means), color=style.color, lw=1.5, ls=line_style(style), alpha=0.75, zorder=2)
    scaled = [(row["gmac"], tuple(None if v is None else one.scale * v for v in point)) for row, point in points]
    draw(panel, style, sorted(scaled), line=False)  # type: ignore[arg-type]


def depth(found: Found, shape: Shape = "wide", styles: Styles | None = None) -> Figure | None:
    """Measures with a value for every block, as curves over depth with their intervals; None without any."""
    rows = [row for row in found["rows"] if row["status"] == "done"]
    names = values_of(rows, curves=True)
    if not names:
        return None
    labelled: dict[str, list[Row]] = {}
    for row in rows:
        labelled.setdefault(describe(row["point"], found), []).append(row)
    drawn = looks(labelled, styles_in(found) if styles is None else styles)
    with looking():
        figure, axes = _panels(len(names), shape, list(labelled))
        for panel, name in zip(axes, names):
            known = meaning(name)
            for label, members in labelled.items():
                for row in members:
                    if name in row["values"]:
                        _over_depth(panel, drawn[label], row["values"][name], known.scale)
            panel.set_title(known.title)
            panel.set_ylabel(known.unit)
            panel.set_xlabel("frame of tokens" if name.endswith("per_frame") else "block")
            panel.locator_params(axis="x", integer=True)
        put_legend(figure, drawn, shape, unreduced=False)
    return figure


def _over_depth(panel: Axes, style: Style, numbers: Mapping[str, Any], scale: float) -> None:
    known = [i for i, value in enumerate(numbers["value"]) if value is not None]
    xs = [float(i) for i in known]
    mark = {key: value for key, value in marker(style, 0.7).items() if key != "color"}
    line = line_style(style)
    panel.plot(xs, [scale * numbers["value"][i] for i in known], color=style.color, lw=1.5, ls=line, **mark)
    low, high = ([scale * numbers[end][i] for i in known] for end in ("low", "high"))
    panel.fill_between(xs, low, high, color=style.color, alpha=0.12, lw=0)


def _panels(number_of: int, shape: Shape, names: Sequence[str]) -> tuple[Figure, list[Axes]]:
    down, across = arranged(number_of, shape)
    beside = legend_height(names, shape)
    figure = new_figure(shape, max(4.4, 3.6 * down, beside) if shape == "wide" else 3.9 * down + beside)
    axes = figure.subplots(down, across, squeeze=False).flatten().tolist()
    for panel in axes[number_of:]:
        panel.set_visible(False)
    return figure, axes[:number_of]


def _series(rows: Sequence[Row], found: Found) -> dict[str, list[Row]]:
    """Rows that differ in strength alone, under the name of what they share."""
    strengths = {"budget", "seed"} | {
        key for key in (k for axis in found["axes"] for k in axis) if _is_strength(key, rows)
    }
    series: dict[str, list[Row]] = {}
    for row in rows:
        rest = {k: v for k, v in row["point"].items() if k not in strengths}
        series.setdefault(describe(rest, found) if rest else row["method"], []).append(row)
    return series


def _is_strength(key: str, rows: Sequence[Row]) -> bool:
    values = {row["point"].get(key) for row in rows if not isinstance(row["point"].get(key), (list, dict))}
    return key.startswith("reducer.") and len(values) >= STRENGTHS and all(number(v) is not None for v in values)


def _is_curves(rows: Sequence[Row], found: Found) -> bool:
    costs = [{row.get("gmac") for row in members} for members in _series(rows, found).values()]
    return bool(costs) and max(map(len, costs)) >= STRENGTHS
