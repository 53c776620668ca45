"""The comparison as a table for a terminal of any width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokred.report.columns import DIFFERS, HIGHEST, Column, columns
from tokred.report.definitions import legend, progress, sentence
from tokred.report.table import leftovers
from tokred.report.text import clean, join, plural, shorten
from tokred.report.view import Run

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Fitting = tuple[list[Column], set[str], list[str]]


def print_table(results: Mapping[str, Any], console: Console | None = None, width: int | None = None) -> None:
    """Print the comparison; at most as wide as the console, whose width it takes where none is given."""
    from rich.console import Console

    console = console or Console()
    width = min(width or console.width, console.width)
    console.print(terminal(results, width), width=width)


def terminal(results: Mapping[str, Any], width: int = 100) -> RenderableType:
    """Return the table with its legend, notes and failures, for a terminal `width` characters wide.

    Less important columns go where there is no room, and a line below the table names them.
    """
    from rich.console import Group
    from rich.text import Text

    run = Run(results)
    shown, bare, gone = _fit(run, width)
    lines: list[Any] = [Text(run.title, style="bold"), Text(sentence(run))]
    if warning := progress(run):
        lines.append(Text(warning, style="bold yellow"))
    lines += [Text(), _table(run, shown, bare), Text()]
    brackets = any(c.key.startswith(("top1:", "agreement")) and c.key not in bare for c in shown)
    lines += [Text(t, style="dim") for t in legend(run, brackets)]
    if gone:
        missing = f"No room at {width} characters for: {join(gone)}. results.csv has every column."
        lines.append(Text(missing, style="dim"))
    lines += [Text(f"[{i}] {t}", style="dim") for i, t in enumerate(run.footnotes, 1)]
    lines += [Text(f"note: {note}") for note in run.remarks]
    if run.rest:
        lines.append(Text(f"\nWithout a result: {plural(len(run.rest), 'row')}", style="bold"))
    for status, text in leftovers(run):
        style = "red" if status == "failed" else "yellow"
        lines.append(Text(f"  {status}: ", style=style) + Text(text, style="default"))
    if run.failures:
        lines.append(Text(f"\n{plural(len(run.failures), 'file')} could not be used:", style="bold red"))
    lines += [Text(f"  {clean(f.get('path'))}: {clean(f.get('reason'))}") for f in run.failures]
    return Group(*lines)


def _fit(run: Run, width: int) -> Fitting:
    """Return the columns that fit, the keys of those shown without their second part, and what had to go."""
    from rich.console import Console

    everything = columns(run)
    # Columns of one level (the same number of several label sets) go together: half of them would mislead.
    levels = sorted({n for c in everything for n in (c.drop, c.drop_sub) if n}, reverse=True)
    ruler = Console(width=10_000, color_system=None)

    def fits(without: list[int]) -> bool:
        shown, bare, _ = _without(run, everything, without)
        return ruler.measure(_table(run, shown, bare)).maximum <= width

    gone: list[int] = []
    for level in levels:
        if fits(gone):
            break
        gone.append(level)
    # A wide column that went late may have left room for a narrow one that went early.
    for level in gone[::-1][1:]:
        rest = [n for n in gone if n != level]
        if fits(rest):
            gone = rest
    return _without(run, everything, gone)


def _without(run: Run, everything: list[Column], levels: list[int]) -> Fitting:
    rows = [r for g in run.groups for r in g.rows]
    shown = [c for c in everything if c.drop not in levels]
    bare = {c.key for c in shown if c.drop_sub in levels}
    gone = [c.title for c in everything if c.drop in levels]
    gone += [c.sub_title for c in shown if c.key in bare and any(c.cell(r).sub for r in rows)]
    return shown, bare, list(dict.fromkeys(gone))


def _table(run: Run, shown: list[Column], bare: set[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", show_edge=False)
    cells = {id(r): [c.cell(r) for c in shown] for g in run.groups for r in g.rows}
    marked = [any(row[i].text.endswith((DIFFERS, HIGHEST)) for row in cells.values()) for i in range(len(shown))]
    for c, marks in zip(shown, marked):
        parts = [p for p in c.head.split("\n") if not (c.key in bare and p.startswith("("))]
        head = "\n".join(shorten(p, 16) + (" " if marks and c.key in bare else "") for p in parts)
        table.add_column(Text(head), justify="left" if c.left else "right", no_wrap=True, vertical="bottom")
    for group in run.groups:
        table.add_section()
        if group.title != "Unreduced":
            table.add_row(Text(_short(group.title), style="bold cyan"))
        for row in group.rows:
            texts = []
            for c, x, marks in zip(shown, cells[id(row)], marked):
                # A place for the mark in every cell, so that the digits stay under each other.
                text = (shorten(x.text, 28) if c.left else x.text) + (
                    " " if marks and not x.text.endswith((DIFFERS, HIGHEST)) else ""
                )
                sub = f" {x.sub}" if x.sub and c.key not in bare else ""
                texts.append(Text(text + sub, style="bold" if x.mark else ""))
            table.add_row(*texts)
    return table


def _short(title: str) -> str:
    return title.replace(" of the unreduced multiply-adds", " budget").replace(" (not at equal cost)", "")
