"""The results table as HTML. Everything that is shown goes through `e`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tokred.report.columns import DIFFERS, HIGHEST, Cell, Column, columns
from tokred.report.style import Style, marker_svg
from tokred.report.text import clean
from tokred.report.view import Run


def e(value: object) -> str:
    """Return any value as text that is safe inside an element or a quoted attribute."""
    return escape(clean(value), quote=True)


def table(run: Run, styles: Mapping[str, Style]) -> str:
    """Return the results: a body for each budget, the method as heading of its row."""
    shown = columns(run)
    head = "".join(
        f'<th scope="col" title="{e(c.help)}"{" class=left" if c.left else ""}>'
        + "<br>".join(e(part) for part in c.head.split("\n"))
        + "</th>"
        for c in shown
    )
    bodies = []
    for group in run.groups:
        rows = []
        if group.title != "Unreduced":
            title = f'<th colspan="{len(shown)}" scope="rowgroup"><span>{e(group.title)}</span></th>'
            rows.append(f'<tr class="group">{title}</tr>')
        for row in group.rows:
            first, *others = (c.cell(row) for c in shown)
            name = f"<span>{marker_svg(styles[row['method']])}<span>{e(first.text)}</span></span>"
            cells = "".join(_cell(x, c) for x, c in zip(others, shown[1:]))
            rows.append(f'<tr><th scope="row" data-s="{e(first.sort)}">{name}</th>{cells}</tr>')
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return f'<table class="sortable"><thead><tr>{head}</tr></thead>{"".join(bodies)}</table>'


def _cell(cell: Cell, column: Column) -> str:
    mark = cell.text[-1:] if cell.text.endswith((DIFFERS, HIGHEST)) else ""
    text = cell.text.removesuffix(mark)
    css = " ".join(name for name, on in (("left", column.left), ("high", cell.mark), ("sig", mark == DIFFERS)) if on)
    place = f"<i>{e(mark)}</i>" if mark else ""
    sub = f"<small>{e(cell.sub) if column.left else _number(cell.sub)}</small>" if cell.sub else ""
    sort = "" if cell.sort is None else cell.sort
    value = e(text) if column.left else _number(text)
    return f'<td{f" class={chr(34)}{css}{chr(34)}" if css else ""} data-s="{e(sort)}">{value}{place}{sub}</td>'


def _number(text: str) -> str:
    return e(text.replace("-", "−"))
