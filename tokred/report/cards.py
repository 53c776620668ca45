"""The summary on top of the page: the unreduced model, the highest value of each budget, what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from tokred.report.columns import DIFFERS
from tokred.report.markup import e
from tokred.report.style import Style, marker_svg
from tokred.report.text import clean, count, fixed, number, percent, plural, significant
from tokred.report.view import Group, Row, Run, accuracy, label, speed


def cards(run: Run, styles: Mapping[str, Style]) -> str:
    """Return the cards as one block of markup."""
    found = [_unreduced(run), *(_budget(run, g, styles) for g in run.groups if g.budget is not None), _state(run)]
    return f'<div class="cards">{"".join(c for c in found if c)}</div>'


def _card(title: str, facts: list[tuple[str, str]]) -> str:
    """Facts are (name, markup)."""
    items = "".join(f"<dt>{e(name)}</dt><dd>{value}</dd>" for name, value in facts)
    return f'<div class="card"><h2>{e(title)}</h2><dl>{items}</dl></div>' if facts else ""


def _unreduced(run: Run) -> str:
    row = run.unreduced
    if row is None:
        return ""
    facts = [(f"{clean(s)} top-1", f"<b>{percent(accuracy(row, s).get('top1'))} %</b>") for s in run.label_sets]
    facts.append(("multiply-adds", run.words(f"<b>{significant(row.get('gmac'))}</b> GMAC a clip")))
    if number(speed(row).get("clips_per_s")) is not None:
        facts.append(("speed", run.words(f"<b>{fixed(speed(row)['clips_per_s'], 1)}</b> clips/s")))
    return _card("Unreduced", facts)


def _budget(run: Run, group: Group, styles: Mapping[str, Style]) -> str:
    facts = []
    for name in run.label_sets:
        best = [r for r in group.rows if run.is_highest(r, name)]
        if best:
            a = accuracy(best[0], name)
            text = f"<b>{percent(a.get('top1'))} %</b>"
            if number(a.get("diff")) is not None:
                mark = DIFFERS if run.differs(best[0], name) else ""
                text += f" ({percent(a.get('diff'), sign=True).replace('-', '−')}{mark})"
            facts.append((f"highest {clean(name)}", _names(best, styles) + text))
    if not run.labelled:
        best = [r for r in group.rows if run.is_highest(r, "agreement")]
        if best:
            facts.append(("highest agreement", _names(best, styles) + f"<b>{percent(run.value(best[0], ''))} %</b>"))
    timed = [r for r in group.rows if number(speed(r).get("speedup")) is not None]
    if len(timed) > 1:
        fastest = max(timed, key=lambda r: speed(r)["speedup"])
        facts.append(("fastest", _names([fastest], styles) + f"<b>{fixed(speed(fastest)['speedup'], 2, 'x')}</b>"))
    return _card(f"At {percent(group.budget, 0)} %", facts)


def _names(rows: list[Row], styles: Mapping[str, Style]) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{marker_svg(styles[rows[0]['method']])}{e(label(rows[0]))}{more} "


def _state(run: Run) -> str:
    facts = [("rows", f"<b>{len(run.done)}</b> of {len(run.rows)}")]
    for status, name in (("failed", "failed"), ("refused", "refused"), ("pending", "not run")):
        n = sum(r.get("status") == status for r in run.rest)
        if n:
            facts.append((name, f"<b>{n}</b>"))
    if number(run.part("data").get("items")) is not None:
        facts.append((run.words("clips"), f"<b>{count(run.part('data')['items'])}</b>"))
    if run.failures:
        facts.append(("could not be used", f"<b>{plural(len(run.failures), 'file')}</b>"))
    return _card("This run", facts)
