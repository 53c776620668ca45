"""Tables of a sweep beside its points and effects: points over their seeds, overlaps, and verdicts in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokred.report.frames import mean
from tokred.report.text import clean, fixed, number, percent, plural

if TYPE_CHECKING:
    import pandas as pd

Table = tuple[list[str], list[list[str]]]
CONTRADICTS, DIFFERS = "contradicts", "printed equal, ours differs"
MARKS = {
    "same sign": "✓",
    "same sign, p >= 0.05": "(✓)",
    CONTRADICTS: "✗",
    DIFFERS: "✗",
    "not resolved": "?",
    "printed equal": "=",
    "not printed": "–",
    "not computed": "–",
}
"""Every verdict, in the order in which they are counted."""


def over_seeds(found: Mapping[str, Any]) -> Table:
    """Heads and cells of the table of points that have several seeds: all their clips in one number, and the standard
    deviation between seeds beside it; a line for each label set or measured value."""
    heads = [
        "over seeds",
        "seeds",
        "measured on",
        "mean",
        "sd of seeds",
        "diff",
        "95 % interval",
        "sd of seeds",
        "clips",
    ]
    lines = []
    for entry in found.get("over_seeds") or []:
        point = [clean(entry["label"]), ", ".join(map(str, entry["seeds"]))]
        for name, numbers in entry["accuracy"].items():
            star = "*" if (number(numbers.get("p")) or 1.0) < 0.05 else ""
            low, high = (number(numbers.get(end)) for end in ("diff_low", "diff_high"))
            lines.append(
                [
                    *(*point, f"{clean(name)} %", percent(numbers.get("top1")), percent(numbers.get("top1_sd"))),
                    percent(numbers.get("diff"), sign=True) + star,
                    "–" if low is None or high is None else f"{100 * low:+.1f} to {100 * high:+.1f}",
                    *(percent(numbers.get("diff_sd")), str(numbers.get("n"))),
                ]
            )
        for name, numbers in entry["values"].items():
            middle = [fixed(mean(numbers[key]), 3) for key in ("value", "sd")]
            lines.append([*point, clean(name), *middle, "–", "–", "–", _clips(numbers.get("n"))])
    return heads, lines


def _clips(counts: Any) -> str:
    """Of a curve, those of the entry that has most."""
    known = counts if isinstance(counts, list) else [counts]
    return str(max(known, default="–"))


def overlap(found: Mapping[str, Any]) -> Table:
    """Heads and cells of the table of pairs of points: what both keep and merge, and whether they rank clips alike."""
    heads = ["overlap", "IoU", "Rand", "Spearman", "Kendall", "clips"]
    measured = ("iou", "rand", "spearman", "kendall")
    lines = [
        [f"{clean(pair['a'])} & {clean(pair['b'])}", *(fixed(pair[key], 3) for key in measured), str(pair["clips"])]
        for pair in found.get("overlap") or []
    ]
    return heads, lines


def overlap_frame(found: Mapping[str, Any]) -> pd.DataFrame:
    """Every pair of points, see ``overlap`` in sweep.json; empty without any."""
    import pandas as pd

    return pd.DataFrame([{**pair, "a": clean(pair["a"]), "b": clean(pair["b"])} for pair in found.get("overlap") or []])


def seeds_frame(found: Mapping[str, Any]) -> pd.DataFrame:
    """Every point that has several seeds, a line each, see ``over_seeds`` in sweep.json; empty without any.

    Returns:
        ``point``, ``seeds`` (joined by spaces), for each label set ``<name>_top1``, ``_low``, ``_high``, ``_n``,
        ``_diff``, ``_diff_low``, ``_diff_high``, ``_p``, ``_top1_sd``, ``_diff_sd``; for other measures ``<value>``,
        ``<value>_sd``, of curves the mean of their entries. Shares of one.
    """
    import pandas as pd

    lines = []
    for entry in found.get("over_seeds") or []:
        line: dict[str, Any] = {"point": clean(entry["label"]), "seeds": " ".join(map(str, entry["seeds"]))}
        for name, numbers in entry["accuracy"].items():
            line |= {f"{name}_{key}": value for key, value in numbers.items() if not key.startswith("seed_")}
        for name, numbers in entry["values"].items():
            line |= {name: mean(numbers["value"]), f"{name}_sd": mean(numbers["sd"])}
        lines.append(line)
    return pd.DataFrame(lines)


def verdict_line(found: Mapping[str, Any]) -> str:
    """How often each verdict was reached, in one line; a printed equality that ours contradicts is a contradiction.

    Returns:
        "9 printed effects: same sign: 5; contradicts: 3 (2 of them printed equal, ours differs); not resolved: 1";
        empty without effects.
    """
    reached = [effect["verdict"] for effect in found.get("effects") or []]
    if not reached:
        return ""
    equal = reached.count(DIFFERS)
    parts = []
    for name in MARKS:
        count = reached.count(name)
        if name == CONTRADICTS and equal:
            parts.append(f"{name}: {count + equal} ({equal} of them {DIFFERS})")
        elif count and name != DIFFERS:
            parts.append(f"{name}: {count}")
    return f"{plural(len(reached), 'printed effect')}: {'; '.join(parts)}"
