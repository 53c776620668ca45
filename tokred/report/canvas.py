"""Drawing: figures, lines with intervals, legends, and what leaves the program as PNG or SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import TYPE_CHECKING, Any, Literal

from tokred.report.series import Line, Point
from tokred.report.style import Style, line_style, look
from tokred.report.text import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Shape = Literal["wide", "tall"]
DPI = 160  # a wide picture is 10 inches, 1600 pixels
WIDTH: dict[Shape, float] = {"wide": 10.0, "tall": 4.4}


def looking() -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws in the project's style; it leaves nothing behind."""
    import matplotlib

    return matplotlib.rc_context(look())


def new_figure(shape: Shape, height: float) -> Figure:
    """Return an empty figure, without any global state (no pyplot, no backend chosen); height in inches."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.04, hspace=0.05)
    return Figure(figsize=(WIDTH[shape], height), layout=engine)


def arranged(panels: int, shape: Shape) -> tuple[int, int]:
    """Rows and columns of so many panels: their titles have room, and on a phone they stand under each other."""
    across = 1 if shape == "tall" else panels if panels <= 3 else 2 if panels == 4 else 3
    return -(-panels // across), across


def draw(panel: Axes, style: Style, points: Sequence[tuple[float, Point]], line: bool = True) -> None:
    """Draw one method's points (x, (y, low, high)) with their intervals, joined where `line` says so."""
    if not points:
        return
    xs, ys = [x for x, _ in points], [p[0] for _, p in points]
    if line:
        panel.plot(xs, ys, color=style.color, lw=1.5, ls=line_style(style), alpha=0.75, zorder=2)
    for x, (_, low, high) in points:
        if low is not None and high is not None:
            panel.plot([x, x], [low, high], color=style.color, lw=1.1, alpha=0.6, zorder=2, solid_capstyle="butt")
    panel.plot(xs, ys, ls="none", zorder=3, **marker(style))


def marker(style: Style, scale: float = 1.0) -> dict[str, Any]:
    """Return the marker's arguments for `Axes.plot`."""
    # A white rim keeps markers apart where they overlap; a thin shape needs more size for the same weight.
    thin = style.marker in ("*", "X", "P") or isinstance(style.marker, tuple)
    return {
        "marker": style.marker,
        "markersize": scale * (9.5 if thin else 7.5),
        "markerfacecolor": style.color,
        "markerfacecoloralt": "white",
        "markeredgecolor": "white" if style.fill == "full" else style.color,
        "markeredgewidth": 0.8,
        "fillstyle": style.fill,
        "color": style.color,
    }


def handle(style: Style, label: str) -> Any:
    """Return the legend entry of a method."""
    from matplotlib.lines import Line2D

    return Line2D([], [], lw=1.5, ls=line_style(style), label=label, **marker(style))


def legend(figure: Figure, lines: Sequence[Line], shape: Shape, more: list[Any]) -> None:
    """Put the legend outside the panels: right of a wide figure, below a tall one."""
    handles = [*more, *(handle(line.style, line.label) for line in lines)]
    if shape == "wide":
        figure.legend(handles=handles, loc="outside right center", fontsize=9.5, handlelength=2.6)
    else:
        figure.legend(handles=handles, loc="outside lower center", fontsize=8, handlelength=2.6, ncols=2)


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, `DPI` pixels an inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    with looking():
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def svg(figure: Figure, name: str, alt: str) -> str:
    """Return the figure as an SVG element for a page.

    Args:
        name: prefix of every id in it, unique in the page; alt: what the picture shows, for those who do not see it.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with looking():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        FigureCanvasSVG(figure).print_figure(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Two pictures of one page must not share an id: the second would use the first one's clip paths.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = text.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    width, height = (f"{72 * inches:g}" for inches in figure.get_size_inches())
    return (
        f'<svg role="img" aria-label="{escape(clean(alt))}" viewBox="0 0 {width} {height}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">' + text.split(">", 1)[1].strip()
    )
