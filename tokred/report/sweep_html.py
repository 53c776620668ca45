"""A sweep as a section of a page: its tables, its pictures, what it was held against, and how to do it again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokred.report.canvas import Shape
from tokred.report.frames import point_rows
from tokred.report.looks import styles_in
from tokred.report.markup import e
from tokred.report.measured import MEANINGS
from tokred.report.overview import SWIPE
from tokred.report.style import Style, marker_svg
from tokred.report.sweep_more import over_seeds, overlap, verdict_line
from tokred.report.sweep_table import describe, effects, points, remarks
from tokred.report.text import MISSING, plural, significant

NARROW = 10
"""A table of so many columns fits on a page that stands upright."""

NUMBER = re.compile(r"(?:p=|(p<))?([+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.,=])[*%]?(?: to .*)?$")

SHAPES: tuple[Shape, Shape] = ("wide", "tall")
ELSEWHERE = {
    "ablation": "Every point is in the table.",
    "retention": "Every number is in sweep.json.",
    "depth": "The means over depth are in the table, every number is in sweep.json.",
}
"""Where the numbers of a picture stand, if not in the table of points."""

TERMS = {
    "full-size GMAC": "Multiply-adds of the same setting on the published backbone and input, counted on shapes alone.",
    "printed": """What the paper prints for this setting, on its data and backbone; its size is not to be compared with
        ours.""",
    "Effect": """The difference between two settings: as printed, and as measured here on the same clips. Its sign is
        what can be held against each other.""",
    "same sign": "Ours has the printed sign, with p < 0.05. Where p >= 0.05 chance may have given it.",
    "contradicts": "Ours has the other sign, and p < 0.05.",
    "not resolved": "Ours is zero or has the other sign, but p >= 0.05: more clips would be needed.",
}


def section(found: Mapping[str, Any], name: str, heading: str, styles: Mapping[str, Style] | None = None) -> str:
    """One sweep of a page.

    Args:
        found: as read from sweep.json; name: of its anchor, unique in the page; heading: its title;
        styles: by method, where several runs share them.
    """
    styles = styles_in(found) if styles is None else styles
    parts = [f"<h1>{e(heading)}</h1>", f'<p class="lead">{e(lead(found))}</p>']
    if created := found.get("created"):
        parts.append(f'<p class="soft">{e(str(created).replace("T", " ").replace("+00:00", " UTC"))}</p>')
    if not found.get("complete", True):
        parts.append('<p class="alert">Not every point is computed; the same command goes on from here.</p>')
    parts += [_figures(found, name, styles), _points(found, name, styles)]
    parts += [_plain(f"{name}-seeds", "Over seeds", over_seeds(found)), _effects(found, name)]
    parts += [_plain(f"{name}-overlap", "Overlap of points", overlap(found))]
    parts += [_remarks(found), _facts(found)]
    return f'<section class="run" id="{e(name)}">' + "\n".join(part for part in parts if part) + "</section>"


def lead(found: Mapping[str, Any]) -> str:
    """In one sentence what was varied, and on what."""
    groups = found.get("groups") or []
    done = sum(row["status"] == "done" for row in found["rows"])
    on = "; ".join(
        dict.fromkeys(
            f"{g['backbone']} ({significant(g['gmac'])} GMAC), {plural(g['items'], g['unit'])} of {g['data']}"
            for g in groups
        )
    )
    varied = (", ".join(key.removeprefix("reducer.") for key in axis) for axis in found.get("axes") or [])
    axes = " x ".join(varied) or "one point"
    source = f" After {found['source']}." if found.get("source") else ""
    return f"{axes}: {done} of {plural(len(found['rows']), 'cell')} on {on}.{source}"


def definitions(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What the words of the tables mean, where there is any sweep."""
    measured = {name for run in runs for row in run["rows"] for name in row.get("values") or ()}
    values = {name: known.text.partition(": ")[2] for name, known in MEANINGS.items() if name in measured}
    terms = {**TERMS, **{name: text[0].upper() + text[1:] for name, text in values.items()}}
    return [(term, " ".join(text.split())) for term, text in terms.items()] if runs else []


def _figures(found: Mapping[str, Any], name: str, styles: Mapping[str, Style]) -> str:
    from tokred.report import canvas
    from tokred.report.sweep_plots import caption, pictures

    wide, tall = (pictures(found, shape, styles) for shape in SHAPES)
    shown = []
    for key, figure in wide.items():
        text = caption(key, found)
        alt = f"{text} {ELSEWHERE.get(key, 'Every number is in the table.')}"
        plates = "".join(
            f'<div class="plate {shape}">{canvas.svg(drawn, f"{name}{key}-{shape[0]}", alt)}</div>'
            for shape, drawn in (("wide", figure), ("tall", tall[key]))
        )
        shown.append(f"<figure>{plates}<figcaption>{e(text)}</figcaption></figure>")
    return "<h2>Pictures</h2>" + "\n".join(shown) if shown else ""


def _points(found: Mapping[str, Any], name: str, styles: Mapping[str, Style]) -> str:
    heads, lines = points(found)
    rows = [row for row in point_rows(found) if row["status"] != "excluded"]
    marks = [marker_svg(styles[row["method"]]) if row.get("method") else "" for row in rows]
    return _table(f"{name}-points", "Points", heads, lines, marks) if lines else ""


def _plain(anchor: str, title: str, content: tuple[Sequence[str], Sequence[Sequence[str]]]) -> str:
    heads, lines = content
    return _table(anchor, title, heads, lines) if lines else ""


def _effects(found: Mapping[str, Any], name: str) -> str:
    heads, lines = effects(found)
    if not lines:
        return ""
    paper = found.get("paper") or {}
    what = " ".join(filter(None, (paper.get("metric"), f"({paper['source']})" if paper.get("source") else "")))
    shown = _table(f"{name}-effects", "Printed effects and ours", heads, lines)
    return f'{shown}<p class="soft">Printed: {e(what)}. {e(verdict_line(found))}.</p>'


def _table(
    anchor: str, title: str, heads: Sequence[str], lines: Sequence[Sequence[str]], marks: Sequence[str] = ()
) -> str:
    keys = [sort_keys(column) for column in zip(*lines)]
    left = [i == 0 or (any(column) and not any(map(_is_number, column))) for i, column in enumerate(keys)]
    head = "".join(f'<th scope="col"{" class=left" if left[i] else ""}>{e(text)}</th>' for i, text in enumerate(heads))
    body = []
    for i, line in enumerate(lines):
        mark = marks[i] if i < len(marks) else ""
        first = f'<th scope="row" data-s="{e(keys[0][i])}"><span>{mark}<span>{e(line[0])}</span></span></th>'
        cells = "".join(
            f'<td{" class=left" if left[k] else ""} data-s="{e(keys[k][i])}">{_shown(text, left[k])}</td>'
            for k, text in enumerate(line[1:], 1)
        )
        body.append(f"<tr>{first}{cells}</tr>")
    # A table of few columns is printed between its words; a wide one gets a page that lies on its side.
    css = "results narrow" if len(heads) <= NARROW else "results"
    return (
        f'<div class="{css}"><h2 id="{e(anchor)}">{e(title)}</h2>'
        f'<p class="soft hint">A click on a heading sorts.</p>{SWIPE}'
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{e(anchor)}"><table class="sortable words">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div></div>"
    )


def sort_keys(cells: Sequence[str]) -> list[str]:
    """What the cells of a column are sorted by: numbers where any is one, else their words.

    Args:
        cells: of one column, as they are shown.
    Returns:
        For each cell the number that it begins with ("-5.0*", "p=0.20", "-8.0 to +1.0"), where the column has any;
        its words in a column without; empty, and so sorted last, where there is nothing: "–", or "failed" in a column
        of numbers.
    """
    found = [NUMBER.match(cell) for cell in cells]
    if any(found):
        # Below a threshold is below every number that is written out.
        return ["" if hit is None else "0" if hit[1] else hit[2].removeprefix("+") for hit in found]
    return ["" if cell == MISSING else cell for cell in cells]


def _is_number(key: str) -> bool:
    return NUMBER.fullmatch(key) is not None


def _shown(text: str, words: bool) -> str:
    return e(text if words else text.replace("-", "−"))


def _remarks(found: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{e(line)}</li>" for line in remarks(found))
    return f'<h2>Notes</h2><ul class="plain">{items}</ul>' if items else ""


def _facts(found: Mapping[str, Any]) -> str:
    known = found.get("environment") or {}
    facts = [(key, known.get(key)) for key in ("tokred", "torch", "processor", "threads", "device", "dtype", "commit")]
    facts += [("profile", found.get("profile")), ("seeds", ", ".join(map(str, found.get("seeds") or [])))]
    facts += [("weights", ", ".join(dict.fromkeys(g["weights_sha"][:12] for g in found.get("groups") or [])))]
    items = "".join(f"<div><dt>{e(k)}</dt><dd>{e(v)}</dd></div>" for k, v in facts if v)
    command = found.get("command")
    how = f"<p>The command of this run:</p><pre>{e(command)}</pre>" if command else ""
    excluded = [describe(row["point"], found) for row in found["rows"] if row["status"] == "excluded"]
    left = f"<p>{plural(len(excluded), 'point')} left out on purpose, see the notes.</p>" if excluded else ""
    return f"<h2>How to do this again</h2>{how}{left}<dl class='facts'>{items}</dl>"
