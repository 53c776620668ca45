"""Heatmaps of a sweep: gradient norm retained by point and frame, and what every two points have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, looking, marker, new_figure
from tokred.report.looks import lines_in, wrapped
from tokred.report.measured import Row, meaning
from tokred.report.style import BLUE, RED, Style
from tokred.report.sweep_table import describe
from tokred.report.text import MISSING, clean, fixed, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Found = Mapping[str, Any]
RETAINED = "retained_per_frame"
WRITTEN: dict[Shape, int] = {"wide": 16, "tall": 8}
"""So many columns leave room for a number in each field."""

TITLES: dict[Shape, float] = {"wide": 11.0, "tall": 9.5}

OVERLAPS = {
    "iou": ("kept patches, IoU", True),
    "rand": ("merges, adjusted Rand index", False),
    "spearman": ("ranks of clips, Spearman", False),
    "kendall": ("ranks of clips, Kendall", False),
}
"""Title of each measure of overlap, and whether it is a share, from 0 to 1; the others go from -1 to 1."""


def retention(found: Found, rows: Sequence[Row], styles: Mapping[str, Style], shape: Shape = "wide") -> Figure | None:
    """Share of the gradient norm that the kept tokens carry (STA eq. 7): a row for each point, a column for each
    frame of tokens; points on other clips (seeds) have rows of their own.

    Args:
        rows: those that are finished; styles: by method.
    Returns:
        The figure; None where `tokred.measure.gradnorm` was not measured.
    """
    import numpy as np

    measured = {describe(row["point"], found): row for row in rows if RETAINED in row["values"]}
    if not measured:
        return None
    values = [row["values"][RETAINED]["value"] for row in measured.values()]
    frames = max(map(len, values))
    if not frames:
        return None
    known = meaning(RETAINED)
    table = np.full((len(values), frames), np.nan)
    for line, found_values in zip(table, values):
        line[: len(found_values)] = [np.nan if v is None else known.scale * v for v in found_values]
    names = [wrapped(name, 34 if shape == "wide" else 18) for name in measured]
    with looking():
        figure = new_figure(shape, 0.36 * len(names) + 0.17 * lines_in(names) + (1.5 if shape == "wide" else 2.0))
        panel = figure.subplots()
        _field(panel, table, _shades(), (0.0, known.scale), shape, 0)
        _colours(figure, panel, known.unit, shape)
        panel.set_title(known.title, fontsize=TITLES[shape])
        panel.set_xlabel("frame of tokens")
        every = range(0, frames, max(1, frames // 16))
        panel.set_xticks([place + 0.5 for place in every], [str(place) for place in every])
        _rows(panel, names, [styles[row["method"]] for row in measured.values()])
    return figure


def overlap(found: Found, rows: Sequence[Row], styles: Mapping[str, Style], shape: Shape = "wide") -> Figure | None:
    """What every two points have in common, a panel for each measure of overlap that has any value.

    Args:
        found: ``overlap`` is a list of ``a`` and ``b`` (names of points) with ``iou``, ``rand``, ``spearman`` and
            ``kendall``, None where it is not known; rows: those that are finished; styles: by method.
    Returns:
        The figure; None without any value.
    """
    import numpy as np

    pairs = found.get("overlap") or []
    shown = [name for name in OVERLAPS if any(number(pair.get(name)) is not None for pair in pairs)]
    if not shown:
        return None
    labels = list(dict.fromkeys(clean(pair[end]) for pair in pairs for end in ("a", "b")))
    methods = {describe(row["point"], {**found, "seeds": []}): row["method"] for row in rows}
    names = [f"{wrapped(name, 26 if shape == 'wide' else 16)}  {place}" for place, name in enumerate(labels, 1)]
    looks = [styles.get(methods.get(label, "")) for label in labels]
    across = 1 if shape == "tall" else min(2, len(shown))
    down = -(-len(shown) // across)
    with looking():
        figure = new_figure(shape, (0.3 * len(names) + 0.14 * lines_in(names) + 1.3) * down)
        axes = figure.subplots(down, across, squeeze=False, sharey=shape == "wide").flatten().tolist()
        for panel, name in zip(axes, shown):
            title, share = OVERLAPS[name]
            table = np.full((len(labels), len(labels)), np.nan)
            for pair in pairs:
                value = number(pair.get(name))
                if value is not None:
                    i, j = labels.index(clean(pair["a"])), labels.index(clean(pair["b"]))
                    table[max(i, j), min(i, j)] = value
            # A pair stands once, below the diagonal; a point against itself says nothing.
            asked = np.tri(len(labels) - 1, dtype=bool)
            _field(panel, table[1:, :-1], _shades() if share else _both(), (share - 1.0, 1.0), shape, 2, asked)
            _colours(figure, panel, "", shape)
            panel.set_title(title, fontsize=TITLES[shape])
            panel.set_xticks([i + 0.5 for i in range(len(labels) - 1)], [str(i) for i in range(1, len(labels))])
            _rows(panel, names[1:], looks[1:], rest=f"1 = {clean(labels[0])}")
        for panel in axes[len(shown) :]:
            panel.set_visible(False)
    return figure


def _field(
    panel: Axes, table: Any, shades: Colormap, ends: tuple[float, float], shape: Shape, digits: int, asked: Any = True
) -> None:
    """The fields with their numbers; what is asked for and not known is grey, with a dash."""
    import numpy as np
    import seaborn
    from matplotlib.patches import Rectangle

    small = 8.5 if shape == "wide" else 7.5
    few = table.shape[1] <= WRITTEN[shape]
    words = np.array([[fixed(value, digits).replace("-", "−") for value in line] for line in table])
    seaborn.heatmap(
        table, ax=panel, mask=np.isnan(table), cmap=shades, vmin=ends[0], vmax=ends[1], cbar=False, linewidths=1.2,
        linecolor="white", annot=words if few else None, fmt="", annot_kws={"fontsize": small},
    )  # fmt: skip
    for line, column in np.argwhere(np.isnan(table) & asked):
        panel.add_patch(Rectangle((column, line), 1, 1, facecolor="#e4e6eb", edgecolor="white", lw=1.2))
        panel.text(column + 0.5, line + 0.5, MISSING, ha="center", va="center", fontsize=small)
    panel.grid(False)
    panel.tick_params(length=0)


def _rows(panel: Axes, names: Sequence[str], looks: Sequence[Style | None], rest: str = "") -> None:
    """Names of the rows, each beside its method's marker."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    panel.set_yticks([place + 0.5 for place in range(len(names))], names, rotation=0, fontsize=9)
    panel.tick_params(axis="y", pad=16)
    panel.set_ylabel("")
    if rest:
        panel.set_xlabel(rest)
    # Nine points left of the fields, whatever the size of the panel.
    inches = ScaledTranslation(-9 / 72, 0, panel.figure.dpi_scale_trans)
    beside = blended_transform_factory(panel.transAxes, panel.transData) + inches
    for place, style in enumerate(looks):
        if style is not None:
            panel.plot([0], [place + 0.5], clip_on=False, ls="none", transform=beside, **marker(style, 0.9))


def _colours(figure: Figure, panel: Axes, unit: str, shape: Shape) -> None:
    """The scale: beside a wide picture, below a tall one."""
    place = "right" if shape == "wide" else "bottom"
    bar = figure.colorbar(panel.collections[0], ax=panel, location=place, pad=0.02, aspect=24, label=unit)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)


def _shades() -> Colormap:
    """White to blue: only the lightness tells, so nobody's colours get in the way."""
    return _through("white", "#9cc7e3", BLUE, "#0b3a5c")


def _both() -> Colormap:
    """Orange-red for less than chance, blue for more, white between: safe for colour-blind readers."""
    return _through("#8a3a00", RED, "white", BLUE, "#0b3a5c")


def _through(*colours: str) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("tokred", list(colours))
