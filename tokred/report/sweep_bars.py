"""An ablation as bars: what each setting gains or loses against the first one at the same cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, arranged, looking, new_figure
from tokred.report.looks import lines_in, wrapped
from tokred.report.measured import Row, accuracies, meaning
from tokred.report.style import FAINT, INK, Style
from tokred.report.sweep_table import describe
from tokred.report.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
Entry = Mapping[str, Any]
SAME_COST = 1.1
"""Costs that differ by less are one cost: a solved budget is met to within a few per cent."""

ALPHA = 0.05
PALE = 0.35


def bars(found: Found, rows: Sequence[Row], styles: Mapping[str, Style], shape: Shape = "wide") -> Figure | None:
    """A bar for each point, from the first point of its group to it, with the 95 % interval of the paired difference.

    A group costs the same throughout: the whole grid, or what shares a budget. Bars begin at zero, unlike those of the
    values themselves.

    Args:
        rows: those that are finished, drawn in this order; styles: by method.
    Returns:
        The figure; None where costs differ inside a group, where points are not held against one first point, or where
        no difference is known.
    """
    groups = grouped(found, rows)
    labels = list(dict.fromkeys(label for members in groups for _, by_label in members for label in by_label))
    # The mean over frames says again what the whole clip says.
    whole = [label.removesuffix("_per_frame") for label in labels]
    labels = [label for label, clip in zip(labels, whole) if label == clip or clip not in labels]
    if not groups or not labels:
        return None
    names = [[describe(row["point"], {**found, "seeds": []}) for row, _ in members] for members in groups]
    width = 44 if shape == "wide" else 24
    shown = [[wrapped(name, width) for name in group] for group in names]
    flat = [name for group in shown for name in group]
    with looking():
        down, across = arranged(len(labels), shape)
        height = 0.2 * lines_in(flat) + 0.15 * len(flat) + 0.2 * len(groups) + 1.5
        figure = new_figure(shape, max(2.4, height) * down)
        axes = figure.subplots(down, across, squeeze=False, sharey=shape == "wide").flatten().tolist()
        for panel in axes[len(labels) :]:
            panel.set_visible(False)
        for panel, label in zip(axes, labels):
            scale = _titles(panel, label, rows)
            places = _draw(panel, groups, label, scale, styles)
            panel.axvline(0.0, color=INK, lw=1.1, zorder=3)
            panel.set_yticks(places, flat, fontsize=9 if shape == "wide" else 8)
            panel.set(ylim=(places[-1] + 0.6, -0.6))
            panel.tick_params(axis="y", length=0)
            panel.grid(False, axis="y")
        _legend(figure)
    return figure


def grouped(found: Found, rows: Sequence[Row]) -> list[list[tuple[Row, dict[str, Entry]]]]:
    """The points of an ablation, each with its differences to the first of its group by label set or measured value.

    Args:
        found: ``differences`` (see `tokred.run.sweep_differences`), in older results the effects that a paper printed.
    Returns:
        Groups in the order of the grid, their first members without differences; nothing where it is no ablation.
    """
    known = found.get("differences") or found.get("effects") or []
    points: dict[str, Row] = {}
    for row in rows:
        points.setdefault(_key(row["point"]), row)
    firsts: dict[str, list[str]] = {}
    found_at: dict[str, dict[str, Entry]] = {}
    for entry in known:
        if number(entry.get("ours")) is None:
            continue
        ends = [_matching(points, {**(entry.get("at") or {}), **entry[end]}) for end in ("from", "to")]
        if None in ends or ends[0] == ends[1]:
            return []
        first, other = str(ends[0]), str(ends[1])
        members = firsts.setdefault(first, [first])
        if other not in members:
            members.append(other)
        found_at.setdefault(other, {})[entry["label"]] = entry
    placed = [key for members in firsts.values() for key in members]
    # Chains of effects, and points that none speaks of, are no ablation against one first point.
    if sorted(placed) != sorted(points) or not all(_one_cost([points[k] for k in m]) for m in firsts.values()):
        return []
    order = list(points)
    return [
        [(points[key], found_at.get(key, {})) for key in sorted(members, key=order.index)]
        for members in firsts.values()
    ]


def _key(point: Mapping[str, Any]) -> str:
    return str(sorted((key, str(value)) for key, value in point.items() if key != "seed"))


def _matching(points: Mapping[str, Row], part: Mapping[str, Any]) -> str | None:
    """The one point that these values describe."""
    wanted = {(key, str(value)) for key, value in part.items() if key != "seed"}
    hits = [key for key, row in points.items() if wanted <= {(k, str(v)) for k, v in row["point"].items()}]
    return hits[0] if len(hits) == 1 else None


def _one_cost(rows: Sequence[Row]) -> bool:
    costs = [number(row.get("gmac")) for row in rows]
    known = [cost for cost in costs if cost is not None]
    return len(known) == len(costs) and max(known) <= SAME_COST * min(known)


def _titles(panel: Axes, label: str, rows: Sequence[Row]) -> float:
    """Title and axis of a panel; what its values are multiplied by."""
    if any(one.name == label for one in accuracies(rows)):
        panel.set_title(label)
        panel.set_xlabel("difference in top-1, percentage points")
        return 100.0
    known = meaning(label)
    panel.set_title(known.title)
    panel.set_xlabel("difference, percentage points" if known.unit.startswith("%") else f"difference, {known.unit}")
    return known.scale


def _draw(
    panel: Axes,
    groups: Sequence[Sequence[tuple[Row, Mapping[str, Entry]]]],
    label: str,
    scale: float,
    styles: Mapping[str, Style],
) -> list[float]:
    """The bars of one panel; where each point stands."""
    places: list[float] = []
    for members in groups:
        top = places[-1] + 1.6 if places else 0.0
        for row, by_label in members:
            at = top + members.index((row, by_label))
            places.append(at)
            entry = by_label.get(label)
            color = styles[row["method"]].color
            if entry is None:
                panel.plot([0.0], [at], marker="|", markersize=13, markeredgewidth=2.5, color=color, zorder=3.5)
                continue
            sure = (number(entry.get("p")) or 0.0) < ALPHA
            panel.barh([at], [scale * entry["ours"]], height=0.62, color=color, alpha=1.0 if sure else PALE, zorder=2)
            low, high = number(entry.get("low")), number(entry.get("high"))
            if low is not None and high is not None:
                # On a white rim, so that it is seen on a dark bar.
                for width, color in ((3.4, "white"), (1.5, INK)):
                    ends = [scale * low, scale * high]
                    panel.plot(ends, [at, at], color=color, lw=width, zorder=4, solid_capstyle="butt")
    return places


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = [
        Line2D([], [], color=FAINT, marker="|", markersize=11, markeredgewidth=2.5, ls="none", label="held against"),
        Patch(color=FAINT, label="p < 0.05"),
        Patch(color=FAINT, alpha=PALE, label="p ≥ 0.05"),
        Line2D([], [], color=INK, lw=1.3, label="95 % interval"),
    ]
    figure.legend(handles=handles, loc="outside lower center", fontsize=8, ncols=4, columnspacing=1.2, handlelength=1.6)
