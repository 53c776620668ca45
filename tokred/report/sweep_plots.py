"""The pictures of a sweep: a mark for each point, curves against cost where strengths vary, curves over depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, draw, handle, looking, marker, new_figure
from tokred.report.style import INK, PALETTE, Style, style_of, variant
from tokred.report.sweep_table import describe
from tokred.report.text import number, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
Row = Mapping[str, Any]
CAPTIONED = {
    "points": "Every point of the grid with its 95 % interval; the axis does not begin at zero.",
    "curves": "Quality against multiply-adds per clip, with 95 % intervals.",
    "depth": "Over the blocks of the backbone (or the frames of a clip), means over clips with 95 % intervals.",
}
"""What every picture shows, by its name."""

STRENGTHS = 3
"""So many different costs in one series make a curve; fewer are marks."""


def pictures(found: Found, shape: Shape = "wide") -> dict[str, Figure]:
    """All pictures of a sweep by file name: ``points``, ``curves`` (quality against cost), ``depth``.

    Args:
        found: as read from sweep.json; shape: "wide" for a desktop, "tall" for a phone.
    """
    made = {"points": marks(found, shape), "curves": curves(found, shape), "depth": depth(found, shape)}
    return {name: figure for name, figure in made.items() if figure is not None}


def marks(found: Found, shape: Shape = "wide") -> Figure | None:
    """A mark with its 95 % interval for each point, a panel for each label set or measured value. No bars: they would
    have to begin at zero.

    Returns:
        The figure; None where every series is better shown as a curve, or nothing is there.
    """
    panels = list(_measured(found))
    rows = [row for row in found["rows"] if row["status"] == "done"]
    if not panels or (_series(rows, found) and _is_curves(rows, found)):
        return None
    names = list(dict.fromkeys(describe(row["point"], found) for row in rows))
    with looking():
        height = 0.36 * len(names) + 1.3
        down = len(panels) if shape == "tall" else 1
        figure = new_figure(shape, max(2.4, height) * down)
        axes = figure.subplots(down, len(panels) // down or 1, squeeze=False, sharey=shape == "wide").flatten().tolist()
        styles = _styles(rows, found)
        for panel, (title, get, scale, levels) in zip(axes, panels):
            _marks(panel, [(row, point) for row in rows if (point := get(row))], names, found, styles, scale)
            _unreduced(panel, rows, levels, names, found, scale)
            panel.set_title(title)
            panel.set_yticks(range(len(names)), [shorten(name, 46 if shape == "wide" else 26) for name in names])
            panel.set(ylim=(len(names) - 0.4, -0.6))
            panel.tick_params(axis="y", length=0)
            panel.grid(False, axis="y")
        if any(levels for *_, levels in panels):
            from matplotlib.lines import Line2D

            figure.legend(
                handles=[Line2D([], [], color=INK, lw=1.1, label="unreduced, on the same clips")],
                loc="outside lower center",
                fontsize=8.5,
            )
    return figure


def _unreduced(
    panel: Axes, rows: Sequence[Row], levels: Mapping[str, float], names: list[str], found: Found, scale: float
) -> None:
    """The unreduced model: one line where all points share it, else a stroke beside each point."""
    if len(set(levels.values())) == 1:
        panel.axvline(scale * next(iter(levels.values())), color=INK, lw=1.1, zorder=1)
        return
    for row in rows:
        level = levels.get(row["cell"])
        if level is not None:
            at = names.index(describe(row["point"], found))
            panel.plot([scale * level] * 2, [at - 0.4, at + 0.4], color=INK, lw=1.4, zorder=2)


def curves(found: Found, shape: Shape = "wide") -> Figure | None:
    """Quality against multiply-adds, a line for each series; None where there are fewer than three strengths."""
    rows = [row for row in found["rows"] if row["status"] == "done" and number(row.get("gmac")) is not None]
    panels = list(_measured(found))
    if not panels or not _is_curves(rows, found):
        return None
    series = _series(rows, found)
    with looking():
        across = 1 if shape == "tall" else len(panels)
        down = len(panels) if shape == "tall" else 1
        figure = new_figure(shape, 4.4 * down + (0.1 * len(series) if shape == "tall" else 0))
        axes = figure.subplots(down, across, squeeze=False).flatten().tolist()
        for panel, (title, get, scale, levels) in zip(axes, panels):
            for style, (_, members) in zip(_looks(series), series.items()):
                points = [
                    (row["gmac"], tuple(None if v is None else scale * v for v in point))
                    for row in members
                    if (point := get(row))
                ]
                draw(panel, style, sorted(points))  # type: ignore[arg-type]
            if len(set(levels.values())) == 1:
                panel.axhline(scale * next(iter(levels.values())), color=INK, lw=1.1, zorder=1)
            panel.set_title(title)
            panel.set_xlabel("multiply-adds per clip, GMAC (papers print this as GFLOPs)")
        _legend(figure, series, shape, unreduced=any(len(set(levels.values())) == 1 for *_, levels in panels))
    return figure


def depth(found: Found, shape: Shape = "wide") -> Figure | None:
    """Measures with a value for every block, as curves over depth with their intervals; None without any."""
    rows = [row for row in found["rows"] if row["status"] == "done"]
    names = list(dict.fromkeys(n for row in rows for n, v in row["values"].items() if isinstance(v["value"], list)))
    if not names:
        return None
    labelled: dict[str, list[Row]] = {}
    for row in rows:
        labelled.setdefault(describe(row["point"], found), []).append(row)
    with looking():
        down = len(names) if shape == "tall" else 1
        figure = new_figure(shape, 4.2 * down + (0.1 * len(labelled) if shape == "tall" else 0))
        axes = figure.subplots(down, len(names) // down, squeeze=False).flatten().tolist()
        for panel, name in zip(axes, names):
            for style, measured in zip(_looks(labelled), labelled.values()):
                for row in measured:
                    if name in row["values"]:
                        _over_depth(panel, style, row["values"][name])
            panel.set_title(name.replace("_", " "))
            panel.set_xlabel("frame" if name.endswith("per_frame") else "block")
        _legend(figure, labelled, shape, unreduced=False)
    return figure


def _over_depth(panel: Axes, style: Style, numbers: Mapping[str, Any]) -> None:
    known = [i for i, value in enumerate(numbers["value"]) if value is not None]
    xs = [float(i) for i in known]
    panel.plot(xs, [numbers["value"][i] for i in known], color=style.color, lw=1.5, **_small(style))
    low, high = ([numbers[end][i] for i in known] for end in ("low", "high"))
    panel.fill_between(xs, low, high, color=style.color, alpha=0.12, lw=0)


def _small(style: Style) -> dict[str, Any]:
    return {key: value for key, value in marker(style, 0.7).items() if key != "color"}


def _marks(
    panel: Axes, found: list[tuple[Row, Any]], names: list[str], run: Found, styles: Mapping[str, Style], scale: float
) -> None:
    at = {name: place for place, name in enumerate(names)}
    seen: dict[int, int] = {}
    for row, (value, low, high) in found:
        place = at[describe(row["point"], run)]
        shift = 0.16 * seen.get(place, 0)
        seen[place] = seen.get(place, 0) + 1
        style = styles[describe(row["point"], run)]
        if low is not None and high is not None:
            panel.plot([scale * low, scale * high], [place + shift] * 2, color=style.color, lw=5, alpha=0.3, zorder=2)
        panel.plot([scale * value], [place + shift], ls="none", zorder=3, **marker(style))


def _measured(found: Found) -> Iterator[tuple[str, Any, float, dict[str, float]]]:
    """Title, reader of (value, low, high) from a row, factor for the axis, level of the unreduced model by cell."""
    rows = [row for row in found["rows"] if row["status"] == "done"]
    for name in dict.fromkeys(n for row in rows for n in row["accuracy"]):

        def top1(row: Row, name: str = name) -> Any:
            a = row["accuracy"].get(name)
            return None if a is None else (a["top1"], a["low"], a["high"])

        compared = {row["cell"]: row["accuracy"].get(name) for row in rows}
        levels = {
            cell: round(a["top1"] - a["diff"], 9) for cell, a in compared.items() if a and a.get("diff") is not None
        }
        yield f"{name}, top-1 %", top1, 100.0, levels
    for name in dict.fromkeys(n for row in rows for n, v in row["values"].items() if not isinstance(v["value"], list)):

        def value(row: Row, name: str = name) -> Any:
            v = row["values"].get(name)
            return None if v is None or v["value"] is None else (v["value"], v["low"], v["high"])

        yield name.replace("_", " "), value, 1.0, {}


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


def _styles(rows: Sequence[Row], found: Found) -> dict[str, Style]:
    return {describe(row["point"], found): style_of(row["method"]) for row in rows}


def _looks(series: Mapping[str, Sequence[Row]]) -> list[Style]:
    """A style for each series: its method's, and other colours where one method has several series."""
    found: list[Style] = []
    for members in series.values():
        style = style_of(members[0]["method"])
        again = sum(other.marker == style.marker for other in found)
        if again:
            free = [color for color in PALETTE if color not in {other.color for other in found}] or list(PALETTE)
            style = Style(free[0], style.marker, style.dashed)
            style = variant(style, again)
        found.append(style)
    return found


def _legend(figure: Figure, series: Mapping[str, Sequence[Row]], shape: Shape, *, unreduced: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [handle(style, shorten(name, 40)) for name, style in zip(series, _looks(series))]
    if unreduced:
        handles.insert(0, Line2D([], [], color=INK, lw=1.1, label="unreduced"))
    if shape == "wide":
        figure.legend(handles=handles, loc="outside right center", fontsize=9)
    else:
        figure.legend(handles=handles, loc="outside lower center", fontsize=8)
