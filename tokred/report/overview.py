"""What stands at the top of a page of several runs: how the printed effects came out, run by run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tokred.report.markup import e
from tokred.report.sweep_more import CONTRADICTS, DIFFERS, MARKS
from tokred.report.sweep_table import describe
from tokred.report.text import clean, fixed, number, p_value, plural

Found = Mapping[str, Any]
CONTRADICTIONS = (CONTRADICTS, DIFFERS)
"""Verdicts by which ours speaks against what was printed."""

SWIPE = '<p class="soft swipe">This table scrolls sideways.</p>'


def verdicts(found: Found) -> dict[str, int]:
    """How often each verdict was reached by a sweep, as it says itself or counted from its effects."""
    counted = found.get("verdicts")
    if not isinstance(counted, Mapping):
        counted = Counter(effect["verdict"] for effect in found.get("effects") or ())
    return {clean(name): int(count) for name, count in counted.items() if count}


def contradictions(found: Found) -> list[str]:
    """Each effect of a sweep that came out against the printed one, in words."""
    lines = []
    for effect in found.get("effects") or ():
        if effect["verdict"] in CONTRADICTIONS:
            at = f" ({describe(effect['at'], found)})" if effect.get("at") else ""
            label = clean(effect.get("label") or "")
            points = _is_accuracy(found, effect.get("label"))
            scale, digits, unit = (100.0, 1, " points") if points else (1.0, 3, "")
            ours, p = number(effect.get("ours")), p_value(effect.get("p"))
            gap = _signed(None if ours is None else scale * ours, digits)
            lines.append(
                f"{describe(effect['from'], found)} → {describe(effect['to'], found)}{at}, {label}: printed "
                f"{_signed(effect.get('paper'), 2)}, ours {gap}{unit}" + (f", {p}" if p else "")
            )
    return lines


def overview(runs: Sequence[tuple[str, str, Found]]) -> str:
    """A table of verdicts, a line for each run that holds anything against a paper, and the contradictions with links.

    Args:
        runs: anchor of the section, heading, what the sweep found.
    Returns:
        HTML; empty where no run has any printed effect.
    """
    counted = [(name, heading, verdicts(found), contradictions(found)) for name, heading, found in runs]
    shown = [one for one in counted if one[2]]
    if not shown:
        return ""
    order = [verdict for verdict in MARKS if any(verdict in counts for *_, counts, _ in shown)]
    order += sorted({verdict for *_, counts, _ in shown for verdict in counts} - set(order))
    heads = ["run", "effects", *(f"{MARKS.get(verdict, '')} {verdict}".strip() for verdict in order)]
    head = "".join(f'<th scope="col"{"" if i else " class=left"}>{e(text)}</th>' for i, text in enumerate(heads))
    body = []
    for name, heading, counts, _ in shown:
        numbers = [sum(counts.values()), *(counts.get(verdict, 0) for verdict in order)]
        cells = "".join(
            f'<td data-s="{count}"{_css(verdict, count)}>{count or "–"}</td>'
            for verdict, count in zip(["", *order], numbers)
        )
        link = f'<span><span><a href="#{e(name)}-effects">{e(heading)}</a></span></span>'
        body.append(f'<tr><th scope="row" data-s="{e(heading)}">{link}</th>{cells}</tr>')
    against = [(name, heading, line) for name, heading, _, lines in shown for line in lines]
    items = "".join(
        f'<li><a href="#{e(name)}-effects">{e(heading)}</a><br>{e(line)}</li>' for name, heading, line in against
    )
    listed = (
        f'<h3>{plural(len(against), "contradiction")}</h3><ul class="plain against">{items}</ul>'
        if against
        else "<p>No effect contradicts a printed one.</p>"
    )
    silent = len(runs) - len(shown)
    rest = f'<p class="soft">{plural(silent, "sweep")} without printed effects.</p>' if silent else ""
    return (
        '<section class="results narrow"><h2 id="verdicts">Printed effects, run by run</h2>'
        f'<p class="soft hint">A click on a heading sorts.</p>{SWIPE}'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="verdicts"><table class="sortable words">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{rest}{listed}</section>"
    )


def _signed(value: Any, digits: int) -> str:
    return fixed(value, digits, sign=True).replace("-", "−")


def _css(verdict: str, count: int) -> str:
    return ' class="bad"' if verdict in CONTRADICTIONS and count else ""


def _is_accuracy(found: Found, label: Any) -> bool:
    return any(label in (group.get("label_sets") or ()) for group in found.get("groups") or ())
