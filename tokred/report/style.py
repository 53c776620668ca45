"""One look for every picture: a colour-blind safe palette, and for each method a colour and a marker that never change.

Nothing here touches matplotlib's global state: `look()` returns settings for `matplotlib.rc_context`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

# Okabe and Ito, "Color universal design" (2008), without its yellow and black, and with their orange and sky blue
# darkened until a thin line keeps a contrast of 3:1 on white; four dark hues after Tol, "Colour schemes" (2021).
BLUE, ORANGE, GREEN, RED, PINK, SKY = "#0072b2", "#b87700", "#009e73", "#d55e00", "#c0649b", "#2b8cc4"
INDIGO, WINE, OLIVE, GREY = "#332288", "#882255", "#7f7a1a", "#6b6b6b"
PALETTE = (BLUE, RED, GREEN, PINK, ORANGE, SKY, INDIGO, WINE, OLIVE, GREY)
# For methods that are not the project's own: cobalt, violet, brown, crimson, bottle green, magenta. Nobody's method is
# taken for one of ours by its colour, by readers with deuteranopia or protanopia neither: 10 or more in CIE L*a*b* from
# every colour above, after Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color
# vision deficiency" (2009).
STRANGERS = ("#1b3fd0", "#6f3fd0", "#7a4a1e", "#b0002f", "#0b4f2e", "#c2188f")
# Filled markers: they stay apart without any colour. Tuples are (corners, 1 = star, degrees).
MARKERS: tuple[str | tuple[int, int, int], ...] = (
    "o", "s", "^", "D", "P", "X", "v", "*", "p", "h", "d", "<", ">", (4, 1, 0), (6, 1, 0), (3, 1, 0), (8, 1, 0),
)  # fmt: skip
INK, FAINT = "#1f2430", "#8a8f99"


@dataclass(frozen=True)
class Style:
    """How a method is drawn.

    Args:
        color: "#rrggbb"; marker: a matplotlib marker; dashed: True for baselines;
        fill, dash: fillstyle of the marker and number of the line style, for variants of one method.
    """

    color: str
    marker: str | tuple[int, int, int]
    dashed: bool = False
    fill: str = "full"
    dash: int = 0


# The project's own methods. A name that is not here gets its style from its hash, so nothing must be added here.
KNOWN: dict[str, Style] = {
    "none": Style(INK, "D"),
    "sta": Style(BLUE, "o"),
    "stawindow": Style(BLUE, "v"),
    "tome": Style(RED, "s"),
    "evit": Style(GREEN, "^"),
    "vidtldr": Style(WINE, "h"),
    "eventful": Style(INDIGO, "*"),
    "stts": Style(PINK, "X"),
    "sttsheuristic": Style(PINK, "P", dashed=True),
    "stvit": Style(ORANGE, "p"),
    "stvitr": Style(ORANGE, "h"),
    "ats": Style(OLIVE, "v"),
    "dynamicvit": Style(SKY, (8, 1, 0)),
    "topk": Style(ORANGE, "d", dashed=True),
    "grid": Style(SKY, "P", dashed=True),
    "randomdrop": Style(GREY, "<", dashed=True),
    "randommerge": Style(PINK, ">", dashed=True),
    "fewerframes": Style(INDIGO, (4, 1, 0), dashed=True),
    "lowerresolution": Style(WINE, (6, 1, 0), dashed=True),
}
_FILLS = ("full", "left", "bottom", "right", "top")
_DASHES: tuple[Any, ...] = (
    "-", (0, (4, 2)), (0, (1.2, 1.4)), (0, (7, 2, 1.2, 2)), (0, (3, 1.4, 1.2, 1.4, 1.2, 1.4)), (0, (10, 2.5)),
)  # fmt: skip


def style_of(method: str) -> Style:
    """Return the style of a method by its registered name; case, "-", "_" and spaces do not matter."""
    key = _key(method)
    return KNOWN[key] if key in KNOWN else _candidates(key)[0]


def styles_of(methods: Iterable[str]) -> dict[str, Style]:
    """Return the styles of methods that are drawn together, no two the same.

    Each is `style_of(name)`, except where two names outside `KNOWN` meet in one style (about 1 in 100 pairs): then the
    second in alphabetical order takes its next choice.
    """
    found: dict[str, Style] = {}
    names = sorted(set(methods), key=lambda n: (_key(n) not in KNOWN, n))
    for name in names:
        taken = {(s.color, s.marker) for s in found.values()}
        choices = [style_of(name), *_candidates(_key(name))]
        found[name] = next((s for s in choices if (s.color, s.marker) not in taken), choices[0])
    return found


def variant(style: Style, number: int) -> Style:
    """Return the same colour and marker with another line style and filling, for the `number`-th line of one method.

    Never another colour: that is another method's.
    """
    return replace(style, fill=_FILLS[number % len(_FILLS)], dash=number)


def line_style(style: Style) -> Any:
    """Return how a method's line is dashed, as matplotlib's ``linestyle``; of variants of one method each its own."""
    return _DASHES[(style.dashed + style.dash) % len(_DASHES)]


def _key(method: str) -> str:
    return "".join(c for c in method.casefold() if c not in "-_ ")


def _candidates(key: str) -> list[Style]:
    """All styles in colours that no known method has, in an order that only the name decides."""
    free = [Style(c, m) for m in MARKERS for c in STRANGERS]
    # hash() differs from one process to the next; sha256 does not.
    start = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8], "big") % len(free)
    return free[start:] + free[:start]


def marker_svg(style: Style, size: int = 12) -> str:
    """Return the marker as a small inline SVG, so that a table can show what the pictures use."""
    import numpy as np
    from matplotlib.markers import MarkerStyle

    shape = MarkerStyle(style.marker)
    path = shape.get_path().transformed(shape.get_transform())
    corners = np.asarray(path.vertices, dtype=float)
    low, high = corners.min(axis=0), corners.max(axis=0)
    scale = (size - 1) / max(high - low)
    parts = []
    for points, code in path.iter_segments(curves=True):
        # SVG counts y downwards.
        places = (np.reshape(points, (-1, 2)) - (low + high) / 2) * (scale, -scale) + size / 2
        letter = {1: "M", 2: "L", 3: "Q", 4: "C"}.get(int(code))
        parts.append(letter + " ".join(f"{v:.1f}" for v in places.flatten()) if letter else "Z")
    return (
        f'<svg class="mark" width="{size}" height="{size}" viewBox="0 0 {size} {size}" aria-hidden="true">'
        f'<path d="{"".join(parts)}" fill="{style.color}"/></svg>'
    )


def look() -> dict[Any, Any]:
    """Return the settings of every picture, for `matplotlib.rc_context`."""
    import seaborn

    return {
        **seaborn.plotting_context("notebook"),
        **seaborn.axes_style("ticks"),
        "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
        "font.size": 10, "axes.titlesize": 11, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9,
        "legend.fontsize": 9.5, "legend.frameon": False, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
        "axes.grid": True, "grid.color": "#e6e8ec", "grid.linewidth": 0.8, "axes.axisbelow": True,
        "axes.linewidth": 0.8, "xtick.major.width": 0.8, "ytick.major.width": 0.8, "xtick.major.size": 3.5,
        "ytick.major.size": 3.5, "axes.spines.top": False, "axes.spines.right": False,
        "figure.facecolor": "white", "axes.facecolor": "white", "savefig.facecolor": "white",
        "svg.fonttype": "path", "svg.hashsalt": "tokred", "text.parse_math": False, "axes.unicode_minus": True,
    }  # fmt: skip
