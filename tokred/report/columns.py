"""The columns of the comparison, defined once for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tokred.report import view
from tokred.report.text import MISSING, clean, count, fixed, interval, number, p_value, percent, significant
from tokred.report.view import Row, Run, accuracy, agreement, implied, speed

DIFFERS, HIGHEST = "*", "^"
HELP_KL = "Mean Kullback-Leibler divergence of the output from the unreduced model's."
HELP_DISTANCE = "Mean distance of the features from the unreduced model's."


@dataclass(frozen=True)
class Cell:
    """One table cell.

    Args:
        text: the value; sub: what belongs to it (interval, p), left out where space is short;
        sort: the value to sort by; mark: True where it is the highest of its budget.
    """

    text: str
    sub: str | None = None
    sort: float | str | None = None
    mark: bool = False


@dataclass(frozen=True)
class Column:
    """One column.

    Args:
        key: unique name; head: heading, at most two lines; title: the heading on one line; help: what it means;
        cell: makes the cell of a row; drop: the order in which it goes when space is short, high goes first, 0 never;
        drop_sub: the same for the second part of its cells; sub_title: what that part is called; left: True for text.
    """

    key: str
    head: str
    title: str
    help: str
    cell: Callable[[Row], Cell]
    drop: int
    drop_sub: int = 0
    sub_title: str = ""
    left: bool = False


def columns(run: Run) -> list[Column]:
    """Return the columns that have something to show for this run, in order."""
    method = Column("method", "method", "method", "The reduction method.", _method, 0, left=True)
    # Where a method occurs twice in a group, only its setting tells the rows apart.
    twice = any(len({view.label(r) for r in g.rows}) < len(g.rows) for g in run.groups)
    about = "At a budget it was solved for."
    setting = Column("setting", "setting", "setting", about, _setting, 11 if twice else 70, left=True)
    share = "Multiply-adds per clip in billions, and as a share of the unreduced model's."
    gmac = Column("gmac", "GMAC\n(share)", "GMAC (share)", share, _gmac, 0, 65, "share of the multiply-adds")
    found = [method, setting, gmac]
    for place, name in enumerate(run.label_sets):
        # The first label set always stays; of the others the last goes first.
        found.append(_top1(run, name, max(1, 10 - place) if place else 0))
        found.append(_difference(run, name))
    found += [_agreement(run), _output("kl", "KL\n(nats)", HELP_KL, 90 if run.labelled else 13)]
    if not run.labelled:
        found.append(_output("feature_distance", "feature\ndistance", HELP_DISTANCE, 14))
    interval_of = "Measured, against the unreduced model, with its interval."
    found += [
        Column("clips", "clips/s", "clips/s", "Measured clips per second.", _clips, 80),
        Column("speedup", "speed-\nup", "speed-up", interval_of, _speedup, 20, 95, "speed-up interval"),
        Column("implied", "implied\nspeed-up", "implied speed-up", "What the multiply-adds would give.", _implied, 30),
        Column("tokens", "tokens\nleft", "tokens left", "Tokens that reach the head.", _tokens, 60),
        Column("notes", "note", "notes", "Numbers of the notes below.", lambda r: _notes(run, r), 12, left=True),
    ]
    shown = [r for g in run.groups for r in g.rows]
    found = [replace(c, head=run.words(c.head), title=run.words(c.title), help=run.words(c.help)) for c in found]
    return [c for c in found if c.drop == 0 or any(c.cell(r).text not in (MISSING, "") for r in shown)]


def _output(key: str, head: str, text: str, drop: int) -> Column:
    def cell(row: Row) -> Cell:
        return Cell(significant(row.get(key), 2), sort=number(row.get(key)))

    return Column(key, head, head.replace("\n", " "), text, cell, drop)


def _method(row: Row) -> Cell:
    return Cell(view.label(row), sort=view.label(row))


def _clips(row: Row) -> Cell:
    x = number(speed(row).get("clips_per_s"))
    return Cell(fixed(x, 0 if x is not None and x >= 100 else 1 if x is not None and x >= 10 else 2), sort=x)


def _implied(row: Row) -> Cell:
    return Cell(fixed(implied(row), 2, "x"), sort=implied(row))


def _tokens(row: Row) -> Cell:
    return Cell(count(row.get("tokens_final")), sort=number(row.get("tokens_final")))


def _setting(row: Row) -> Cell:
    text = view.setting(row)
    return Cell(text, sort=text)


def _gmac(row: Row) -> Cell:
    share = number(row.get("gmac_share"))
    return Cell(
        significant(row.get("gmac")), f"({percent(share, 0)} %)" if share is not None else None, number(row.get("gmac"))
    )


def _top1(run: Run, name: str, drop: int) -> Column:
    def cell(row: Row) -> Cell:
        a = accuracy(row, name)
        mark = run.is_highest(row, name)
        text = percent(a.get("top1")) + (HIGHEST if mark else "")
        return Cell(text, interval(a.get("low"), a.get("high"), 100), number(a.get("top1")), mark)

    title = clean(name)
    return Column(
        f"top1:{name}",
        f"{title}\ntop-1 %",
        f"{title} top-1 %",
        f"Correct clips, label set {title}, with 95 % interval.",
        cell,
        drop,
        40,
        "top-1 intervals",
    )


def _difference(run: Run, name: str) -> Column:
    def cell(row: Row) -> Cell:
        a = accuracy(row, name)
        text = percent(a.get("diff"), sign=True) + (DIFFERS if run.differs(row, name) else "")
        return Cell(text, p_value(a.get("p")), number(a.get("diff")))

    title = clean(name)
    return Column(
        f"diff:{name}",
        "diff",
        f"{title} diff",
        f"Top-1 minus the unreduced model's on the same clips, label "
        f"set {title}, in percentage points; p of the paired test, not corrected.",
        cell,
        15,
        100,
        "p of the paired tests",
    )


def _agreement(run: Run) -> Column:
    def cell(row: Row) -> Cell:
        a = agreement(row)
        mark = run.is_highest(row, "agreement")
        text = percent(a.get("value")) + (HIGHEST if mark else "")
        return Cell(text, interval(a.get("low"), a.get("high"), 100), number(a.get("value")), mark)

    return Column(
        "agreement",
        "agree-\nment %",
        "agreement %",
        "Clips with the same first answer as the unreduced model.",
        cell,
        50 if run.labelled else 0,
        97 if run.labelled else 40,
        "agreement interval",
    )


def _speedup(row: Row) -> Cell:
    s = speed(row)
    return Cell(
        fixed(s.get("speedup"), 2, "x"),
        interval(s.get("speedup_low"), s.get("speedup_high"), digits=2),
        number(s.get("speedup")),
    )


def _notes(run: Run, row: Row) -> Cell:
    numbers = [run.footnotes.index(clean(n)) + 1 for n in row.get("notes") or ()]
    return Cell(",".join(map(str, numbers)), sort=float(numbers[0]) if numbers else None)
