"""The comparison as a flat frame, as CSV and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokred.report.columns import Cell, columns
from tokred.report.definitions import legend, progress, sentence
from tokred.report.text import clean, join, number, percent, plural
from tokred.report.view import Row, Run, accuracy, agreement, implied, label, setting, speed

if TYPE_CHECKING:
    import pandas as pd

STATUS = {"failed": "failed", "refused": "refused", "pending": "not run"}


def frame(results: Mapping[str, Any]) -> pd.DataFrame:
    """Return one flat line per row, in the order of the table; rows without a result last.

    Args:
        results: as read from results.json.

    Returns:
        Columns id, method, ..., and for each label set `<name>_top1`, `_low`, `_high`, `_n`, `_diff`, `_diff_low`,
        `_diff_high`, `_p`, `_p_holm`. Shares of one, not percent; gmac in 1e9 multiply-adds; times in ms and s.
    """
    import pandas as pd

    run = Run(results)
    ordered = [r for g in run.groups for r in g.rows] + list(run.rest)
    return pd.DataFrame([_flat(run, r) for r in ordered], columns=None if ordered else ["id"])


def _flat(run: Run, row: Row) -> dict[str, Any]:
    plain = ("id", "method", "label", "reducer", "budget", "status", "reason", "learned", "trained")
    flat: dict[str, Any] = {k: row.get(k) for k in plain}
    flat |= {k: row.get(k) for k in ("gmac", "gmac_share", "reduction_gmac", "tokens_final")}
    flat["tokens_per_block"] = " ".join(str(n) for n in row.get("tokens_per_block") or ())
    for name in run.label_sets:
        a = accuracy(row, name)
        flat |= {f"{name}_{k}": a.get(k) for k in ("top1", "low", "high", "n", "diff", "diff_low", "diff_high", "p")}
        flat[f"{name}_p_holm"] = run.adjusted_p(row, name)
    a = agreement(row)
    flat |= {"agreement": a.get("value"), "agreement_low": a.get("low"), "agreement_high": a.get("high")}
    flat |= {k: row.get(k) for k in ("kl", "feature_distance")}
    flat |= {
        k: speed(row).get(k) for k in ("clips_per_s", "ms_median", "ms_iqr", "speedup", "speedup_low", "speedup_high")
    }
    flat["implied"] = implied(row)
    flat["notes"] = " | ".join(row.get("notes") or ())
    flat["seconds"] = row.get("seconds")
    return {k: clean(v) if isinstance(v, str) else v for k, v in flat.items()}


def csv(results: Mapping[str, Any]) -> str:
    """Return `frame(results)` as CSV; missing values are empty."""
    return str(frame(results).to_csv(index=False, lineterminator="\n"))


def markdown(results: Mapping[str, Any]) -> str:
    """Return the table, its legend, notes and failures as Markdown (GitHub flavour)."""
    run = Run(results)
    shown = columns(run)
    lines = [f"**{_md(run.title)}**", "", _md(sentence(run)), ""]
    if warning := progress(run):
        lines += [f"**{_md(warning)}**", ""]
    lines += [
        _line(["budget", *(c.title for c in shown)]),
        _line(["---", *(":--" if c.left else "--:" for c in shown)]),
    ]
    for group in run.groups:
        budget = (
            "unreduced" if group.title == "Unreduced" else "as given" if group.budget is None else f"{group.budget:g}"
        )
        for row in group.rows:
            lines.append(_line([budget, *(_full(c.cell(row)) for c in shown)]))
    # A line break inside a paragraph would join the lines of the legend.
    lines += ["", *(f"- {_md(t)}" for t in legend(run))]
    lines += ["", *(f"{i}. {_md(t)}" for i, t in enumerate(run.footnotes, 1))] if run.footnotes else []
    if run.rest:
        lines += ["", *(f"- {status}: {_md(text)}" for status, text in leftovers(run))]
    if run.failures:
        lines += ["", f"{plural(len(run.failures), 'file')} could not be used:", ""]
        lines += [f"- {_md(f.get('path'))}: {_md(f.get('reason'))}" for f in run.failures]
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_md(c) for c in cells) + " |" if cells[0] != "---" else "| " + " | ".join(cells) + " |"


def _md(value: object) -> str:
    text = clean(value)
    for character in "\\`*_|<[":
        text = text.replace(character, "\\" + character)
    return text


def _full(cell: Cell) -> str:
    return f"{cell.text} {cell.sub}" if cell.sub else cell.text


def leftovers(run: Run) -> list[tuple[str, str]]:
    """Return (status, line) for what has no result; the budgets of one method with one reason share a line."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in run.rest:
        key = (str(row.get("status")), label(row), clean(row.get("reason") or ""))
        found.setdefault(key, []).append(row)
    lines = []
    for (status, name, reason), rows in found.items():
        budgets = [percent(b, 0) for r in rows if (b := number(r.get("budget"))) is not None]
        given = [setting(r) for r in rows if number(r.get("budget")) is None and setting(r)]
        where = f" at {join(budgets)} %" if budgets else ""
        where += f" ({'; '.join(given)})" if given else ""
        lines.append((STATUS.get(status, clean(status)), f"{name}{where}" + (f": {reason}" if reason else "")))
    return lines
