"""A sweep on a terminal and as Markdown: its points, ours beside theirs, and the signs of the printed effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokred.report.frames import full_off, mean, point_rows
from tokred.report.sweep_more import MARKS, Table, over_seeds, overlap, verdict_line
from tokred.report.text import clean, fixed, number, p_value, percent, plural
from tokred.run.sweep_words import words

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 160
TOLERATED = 0.02
"""Of the printed GFLOPs: counted costs that are further off are said."""

UNBROKEN = 10_000
"""Columns that no table has."""

SHOWN_PAIRS = 30
"""More overlaps are a heatmap and a file, not a table on a terminal."""


def print_sweep(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print every table, then what went wrong."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    # Numbers that are cut off are worse than lines that are broken by the terminal.
    console = console if console is not None else Console(width=max(WIDE, Console().width))
    console.print(Text(clean(found["title"]) + (f"  ({clean(found['source'])})" if found.get("source") else "")))
    for name, (heads, lines) in tables(found).items():
        if not lines:
            continue
        if name == "overlap" and len(lines) > SHOWN_PAIRS:
            console.print(f"\n{len(lines)} pairs of points: their overlaps are in overlap.csv and table.md")
            continue
        table = Table(box=None, pad_edge=False, show_edge=False)
        for place, head in enumerate(heads):
            table.add_column(head, justify="left" if place == 0 else "right", no_wrap=True)
        for cells in lines:
            table.add_row(*(Text(cell) for cell in cells))
        console.print()
        wanted = Measurement.get(console, console.options.update(max_width=UNBROKEN), table).maximum
        console.width = max(console.width, wanted)
        console.print(table)
        if name == "effects":
            console.print(Text(verdict_line(found)), soft_wrap=True)
    for remark in remarks(found):
        console.print(Text(remark), soft_wrap=True)


def sweep_markdown(found: Mapping[str, Any]) -> str:
    """The same as Markdown tables."""
    parts = []
    for name, (heads, lines) in tables(found).items():
        if lines:
            rule = ["---", *("---:" for _ in heads[1:])]
            parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in (heads, rule, *map(_escaped, lines))))
            if name == "effects":
                parts.append(verdict_line(found))
    return "\n\n".join([*parts, *(f"- {line}" for line in remarks(found))]) + "\n"


def tables(found: Mapping[str, Any]) -> dict[str, Table]:
    """Heads and cells of every table, in their order; some have no lines."""
    return {
        "points": points(found),
        "over_seeds": over_seeds(found),
        "effects": effects(found),
        "overlap": overlap(found),
    }


def points(found: Mapping[str, Any]) -> Table:
    """Heads and cells of the table of points, one line each with all measures, in the order of the grid."""
    rows = [row for row in point_rows(found) if row["status"] != "excluded"]
    labels = list(dict.fromkeys(name for row in rows for name in row.get("accuracy") or {}))
    values = list(dict.fromkeys(name for row in rows for name in row.get("values") or {}))
    printed = any(row.get("paper") for row in rows)
    full = any(row.get("full_gmac") is not None for row in rows)
    heads = ["point", "GMAC", "share"]
    for name in labels:
        heads += [f"{name} %", "diff"]
    heads += values
    if full:
        heads += ["full-size GMAC"]
    if printed:
        heads += ["printed GFLOPs", "printed"]
    lines = []
    for row in rows:
        share = number(row.get("gmac_share"))
        line = [describe(row["point"], found), fixed(row.get("gmac"), 3), percent(share, 0)]
        for name in labels:
            numbers = (row.get("accuracy") or {}).get(name) or {}
            star = "*" if (number(numbers.get("p")) or 1.0) < 0.05 else ""
            line += [percent(numbers.get("top1")), percent(numbers.get("diff"), 1, sign=True) + star]
        line += [fixed(mean(((row.get("values") or {}).get(name) or {}).get("value")), 3) for name in values]
        paper = row.get("paper") or {}
        if full:
            line += [fixed(row.get("full_gmac"), 1)]
        if printed:
            line += [fixed(paper.get("gflops"), 1), fixed(paper.get("value"), 2)]
        shown = row["status"] in ("done", "partly done")
        lines.append(line if shown else [*line[:1], row["status"], *line[2:]])
    return heads, lines


def effects(found: Mapping[str, Any]) -> Table:
    """Heads and cells of the table of printed effects."""
    heads = ["effect", "printed", "measured on", "ours", "95 % interval", "p", "verdict"]
    lines = []
    for effect in found.get("effects") or []:
        shares = effect["label"] in _label_sets(found)
        scale, digits = (100.0, 1) if shares else (1.0, 3)
        low, high = (number(effect.get(end)) for end in ("low", "high"))
        lines.append(
            [
                f"{describe(effect['from'], found)} → {describe(effect['to'], found)}" + _at(effect, found),
                fixed(effect["paper"], 2, sign=True),
                clean(effect["label"] or "–"),
                fixed(_scaled(effect["ours"], scale), digits, sign=True),
                "–" if low is None or high is None else f"{low * scale:+.{digits}f} to {high * scale:+.{digits}f}",
                p_value(effect["p"]) or "–",
                f"{MARKS[effect['verdict']]} {effect['verdict']}",
            ]
        )
    return heads, lines


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What has to be said with the tables: excluded and failed points, notes, clips that could not be used."""
    rows = point_rows(found)
    several = len({row.get("measure") for row in found["rows"] if row.get("measure")}) > 1

    def measured(row: Mapping[str, Any]) -> str:
        return f"{row['measure']}: " if several else ""

    lines = [
        f"left out: {describe(row['point'], found)}: {clean(row['reason'])}"
        for row in rows
        if row["status"] == "excluded"
    ]
    lines += [
        f"failed: {describe(row['point'], found)}: {measured(row)}{clean(row['reason'])}"
        for row in found["rows"]
        if row["status"] == "failed"
    ]
    waiting = sum(row["status"] == "pending" for row in found["rows"])
    if waiting:
        lines.append(f"{plural(waiting, 'cell')} not computed yet")
    seen: dict[str, list[str]] = {}
    for row in rows:
        for note in row["notes"]:
            seen.setdefault(clean(note), []).append(describe(row["point"], found))
    for note, where in seen.items():
        lines.append(f"note: {note}" + (f" ({plural(len(where), 'point')})" if len(where) > 1 else f" ({where[0]})"))
    if apart := _apart(rows, found):
        lines.append(apart)
    lost = {f["path"]: f["reason"] for row in rows for f in row.get("failures") or ()}
    lines += [f"not used: {clean(path)}: {clean(reason)}" for path, reason in lost.items()]
    lines += [clean(note) for note in found.get("notes") or ()]
    return lines


def describe(point: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A point in words, see ``tokred.run.sweep_words``."""
    return clean(words(point, found.get("axes") or [], found.get("seeds") or []))


def _apart(rows: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> str:
    """Points whose cost at full size is not the printed one."""
    told = {}
    for row in rows:
        off = full_off(row)
        if off is not None and abs(off) > TOLERATED:
            point = describe({key: value for key, value in row["point"].items() if key != "seed"}, found)
            counted, printed = fixed(row["full_gmac"], 1), fixed(row["paper"]["gflops"], 1)
            told[point] = f"{point} {counted} beside {printed} ({percent(off, 1, sign=True)} %)"
    if not told:
        return ""
    return (
        f"note: full-size GMAC more than {percent(TOLERATED, 0)} % from the printed GFLOPs: {', '.join(told.values())}"
    )


def _at(effect: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return f" ({describe(effect['at'], found)})" if effect.get("at") else ""


def _label_sets(found: Mapping[str, Any]) -> set[str]:
    return {name for group in found.get("groups") or () for name in group.get("label_sets") or ()}


def _scaled(value: Any, scale: float) -> float | None:
    given = number(value)
    return None if given is None else given * scale


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]
