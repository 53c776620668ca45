"""What every number means, in one place for the terminal, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokred.report.columns import DIFFERS, HIGHEST
from tokred.report.text import clean, in_units, join, number, percent, plural, significant
from tokred.report.view import ALPHA, Run

MEANING = {
    "GMAC, share": """Multiply-adds per clip in billions (1 GMAC = 1e9 multiply-adds = 2e9 floating-point operations),
        with the reduction steps and with fused attention counted. Papers print this number as GFLOPs. The share is
        relative to the unreduced model.""",
    "Budget": """A share of the unreduced model's multiply-adds. Each method's strength was found by bisection on the
        counter, so methods at one budget cost about the same; the share column says how close they came.""",
    "Top-1, 95 % interval": """Share of clips whose first answer is the label, with Wilson's score interval: how far
        the value could move with other clips of the same kind. It says nothing about other data.""",
    "Difference, p": """Top-1 minus the unreduced model's on the same clips, in percentage points. p is that of
        McNemar's exact two-sided test on the clips that only one of the two got right. Because the clips are paired,
        the test sees differences that two overlapping intervals would hide. The CSV file also has Tango's 95 % interval
        of the difference.""",
    DIFFERS: f"""The difference is significant: p stays below {ALPHA:g} after Holm's correction over every test in the
        table, because among that many tests some small p appear by chance. A row without the mark has not been
        shown to be equal to the unreduced model; it may only need more clips.""",
    HIGHEST: """Highest value at its budget (ties all carry it). No test between methods stands behind it.""",
    "Agreement": """Share of clips with the same first answer as the unreduced model, right or wrong (with several label
        sets: the same in each of them), with Wilson's interval.""",
    "KL": """Mean over clips of the Kullback-Leibler divergence from the unreduced model's class probabilities to the
        reduced model's, in nats; 0 means the same output. With several label sets their sum.""",
    "Feature distance": """Relative L2 distance of the pooled features to the unreduced model's, mean over clips: 0
        means the same features, about 1.4 unrelated ones of the same length.""",
    "Clips/s, speed-up": """Measured, the compared models taking turns in one run. The speed-up is the median over
        rounds of the unreduced model's time divided by the row's, with a 95 % bootstrap interval over rounds.""",
    "Implied speed-up": """Unreduced multiply-adds divided by the row's: the speed-up if time followed multiply-adds. A
        measured value below it means time lost to work that is not counted, or that runs less efficiently on fewer
        tokens.""",
    "Tokens left": """Tokens that reach the head, class tokens included.""",
}
MEANING = {term: " ".join(text.split()) for term, text in MEANING.items()}


def sentence(run: Run) -> str:
    """Say in one sentence what was compared."""
    backbone, data, settings = run.part("backbone"), run.part("data"), run.part("settings")
    methods = len({r["method"] for r in run.rows if r["method"] != "none"})
    budgets = [b for b in map(number, settings.get("budgets") or ()) if b is not None]
    gmac, items = number(backbone.get("gmac")), number(data.get("items"))
    settings_given = sum(r["method"] != "none" for r in run.rows)
    text = plural(methods, "method")
    if not budgets and settings_given > methods:
        text += f" in {settings_given} settings"
    text += f" on {clean(backbone.get('name') or 'an unnamed backbone')}"
    if gmac is not None:
        text += run.words(f" ({significant(gmac)} GMAC a clip unreduced)")
    clips = "clips" if items is None else plural(int(items), "clip")
    text += f", {run.words(clips)} of {clean(data.get('name') or 'an unnamed data set')}"
    if budgets:
        shares = join([percent(b, 0) for b in sorted(budgets, reverse=True)])
        of = "time, as measured before the run" if settings.get("budget_by") == "time" else "multiply-adds"
        text += f"; each method's strength was solved for {shares} % of the unreduced {of}"
    if not run.labelled:
        text += "; without labels, so each output is compared with the unreduced model's"
    return text + "."


def progress(run: Run) -> str | None:
    """Say what is missing from an unfinished run; None for a finished one."""
    if run.complete:
        return None
    missing = sum(r.get("status") == "pending" for r in run.rows)
    rows = f"{len(run.rows) - missing} of {plural(len(run.rows), 'row')} finished"
    return f"This run was stopped before its end: {rows}. The same command goes on where it stopped."


def legend(run: Run, brackets: bool = True) -> list[str]:
    """Return the lines that explain the marks and units in this run's table.

    Args:
        brackets: the table shows the intervals.
    """
    lines = [run.words("GMAC: billions of multiply-adds per clip (papers print this number as GFLOPs).")]
    if brackets:
        lines.append("Brackets: 95 % interval.")
    if run.labelled:
        lines.append(run.words("diff: percentage points against the unreduced model on the same clips."))
    if any(len(g.rows) > 1 for g in run.groups):
        quality = "agreement" if not run.labelled else "mean top-1" if len(run.label_sets) > 1 else "top-1"
        lines.append(f"Inside a group the row with the highest {quality} comes first.")
    tests = len(run.adjusted)
    if tests:
        found = any(p < ALPHA for p in run.adjusted.values())
        family = "the one test" if tests == 1 else f"the {tests} tests"
        lines.append(
            f"{DIFFERS} differs from the unreduced model (paired test, p < {ALPHA:g} after Holm's correction for "
            f"{family} of this table). Without {DIFFERS} no difference is shown, which is not a proof of equality."
            if found
            else f"No row differs significantly from the unreduced model (paired test, Holm's correction for {family} "
            "of this table), which is not a proof of equality."
        )
    if run.highest:
        lines.append(f"{HIGHEST} highest value at its budget; not a claim that it beats the next one.")
    return lines


def definitions(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return (term, meaning) of every number that a report of these runs shows."""
    labelled = any(run.labelled for run in runs)
    timed = any(row.get("speed") for run in runs for row in run.done)
    without = set() if labelled else {"Top-1, 95 % interval", "Difference, p", DIFFERS}
    without |= {"Feature distance"} if all(run.labelled for run in runs) else set()
    without |= set() if any(g.budget is not None for run in runs for g in run.groups) else {"Budget", HIGHEST}
    without |= set() if timed else {"Clips/s, speed-up", "Implied speed-up"}
    units = {str(run.part("data").get("unit") or "clip") for run in runs}
    unit = units.pop() if len(units) == 1 else "clip"
    return [(in_units(term, unit), in_units(text, unit)) for term, text in MEANING.items() if term not in without]


def reproduce(run: Run) -> list[tuple[str, str]]:
    """Return (name, value) of what identifies this run: code, weights, data, machine."""
    environment, backbone, data = run.part("environment"), run.part("backbone"), run.part("data")
    found = [
        ("Backbone", backbone.get("name")),
        ("Checkpoint", backbone.get("checkpoint")),
        ("Weights digest", backbone.get("weights_sha")),
        ("Parameters", _integer(backbone.get("params"))),
        ("Tokens, unreduced", _integer(backbone.get("tokens"))),
        ("Data", data.get("name")),
        ("Data digest", data.get("digest")),
        (run.words("Clips"), _integer(data.get("items"))),
        *((n.replace("_", " ").capitalize(), v) for n, v in run.part("settings").items() if n != "clips"),
    ]
    for name, value in environment.items():
        if name == "dirty":
            continue
        if name == "commit" and value and environment.get("dirty"):
            value = f"{value} with uncommitted changes"
        found.append((name if name in ("tokred", "torch") else name.capitalize(), value))
    return [(clean(name), _written(value)) for name, value in found if value is not None and value != ""]


def _integer(value: Any) -> str | None:
    x = number(value)
    return None if x is None else f"{x:,.0f}"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_written, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(k)}={_written(v)}" for k, v in value.items())
    return clean(value)


def differences(runs: Sequence[Run]) -> list[str]:
    """Say in which respects joined runs differ, so that nobody compares what is not comparable."""
    found = []
    for what, section, key in (
        ("data", "data", "digest"),
        ("weights", "backbone", "weights_sha"),
        ("tokred version", "environment", "tokred"),
        ("commit", "environment", "commit"),
        ("device", "environment", "device"),
        ("number format", "environment", "dtype"),
    ):
        if len({str(run.part(section).get(key)) for run in runs}) > 1:
            found.append(what)
    return found
