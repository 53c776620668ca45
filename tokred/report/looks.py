"""How the points of a sweep are told apart: a method's own colour and marker, line styles, and names in full."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.canvas import Shape, handle
from tokred.report.style import INK, Style, styles_of, variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
LONGEST = 240
"""Characters of a name in a picture; of a longer one the middle is left out, because seeds stand at the end."""

LEGEND: dict[Shape, int] = {"wide": 26, "tall": 46}
"""Characters in a line of the legend."""


def styles_in(found: Mapping[str, Any]) -> dict[str, Style]:
    """The style of every method of a sweep: one for all of its pictures and tables."""
    return styles_of(row["method"] for row in found["rows"] if row.get("method"))


def looks(series: Mapping[str, Sequence[Row]], styles: Mapping[str, Style]) -> dict[str, Style]:
    """A style for each series: its method's colour and marker; several of one method differ in line style and filling.

    Args:
        series: rows of one method by the name of what they share; styles: by method.
    """
    found: dict[str, Style] = {}
    seen: dict[str, int] = {}
    for name, members in series.items():
        method = members[0]["method"]
        found[name] = variant(styles[method], seen.get(method, 0))
        seen[method] = seen.get(method, 0) + 1
    return found


def wrapped(name: str, width: int) -> str:
    """A name on as many lines as it needs: cut off, two seeds would have one name.

    Args:
        width: characters in a line.
    """
    if len(name) > LONGEST:
        half = (LONGEST - 1) // 2
        name = f"{name[:half]}…{name[-half:]}"
    lines = [""]
    # A list is broken behind a comma, not inside a number.
    for piece in re.findall(r"[^, ]*(?:,? ?)", name):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.strip() for line in lines if line.strip())


def lines_in(names: Sequence[str]) -> int:
    """How many lines names take together that are wrapped."""
    return sum(name.count("\n") + 1 for name in names)


def put_legend(figure: Figure, styles: Mapping[str, Style], shape: Shape, *, unreduced: bool) -> None:
    """Name the series beside a wide figure, below a tall one.

    Args:
        styles: by the name of the series; unreduced: True where a line shows the unreduced model.
    """
    from matplotlib.lines import Line2D

    handles = [handle(style, wrapped(name, LEGEND[shape])) for name, style in styles.items()]
    if unreduced:
        handles.insert(0, Line2D([], [], color=INK, lw=1.1, label="unreduced"))
    if shape == "wide":
        figure.legend(handles=handles, loc="outside right center", fontsize=9, handlelength=3.2)
    else:
        figure.legend(handles=handles, loc="outside lower center", fontsize=8, handlelength=3.2)


def legend_height(names: Sequence[str], shape: Shape) -> float:
    """Inches that the legend of series takes."""
    return 0.2 * lines_in([wrapped(name, LEGEND[shape]) for name in names]) + 0.3
