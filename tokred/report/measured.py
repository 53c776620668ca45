"""What the pictures of a sweep show on their axes: accuracies and measured values, with titles, units and meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokred.report.text import number

Row = Mapping[str, Any]
Point = tuple[float, float | None, float | None]  # value and the ends of its interval


@dataclass(frozen=True)
class Meaning:
    """A measured value in words.

    Args:
        title: above a panel; unit: of its axis; scale: from what is stored to that unit;
        text: one sentence for captions and definitions.
    """

    title: str
    unit: str
    scale: float = 1.0
    text: str = ""


MEANINGS = {
    "retained": Meaning(
        "gradient norm retained",
        "% of the clip's gradient norm",
        100.0,
        "Gradient norm retained: share of the norm of the answer's gradient, over all patches of a clip, that lies on "
        "patches carried to the head (STA eq. 7). Merged patches are carried.",
    ),
    "kept": Meaning(
        "patches kept",
        "% of the clip's patches",
        100.0,
        "Patches kept: share of all patches of a clip that are carried to the head; kept at random they retain the "
        "same share of the gradient norm.",
    ),
    "retained_per_frame": Meaning(
        "gradient norm retained, by frame",
        "% of the frame's gradient norm",
        100.0,
        "Gradient norm retained, by frame: the same share inside each frame of tokens (a tubelet counts as one frame).",
    ),
    "patches_carried": Meaning(
        "patches carried",
        "% of the clip's patches",
        100.0,
        "Patches carried: share of all patches of a clip that some token carries in the end, kept or merged.",
    ),
    "trajectory": Meaning(
        "trajectory sum",
        "sum of cosine similarities",
        1.0,
        "Trajectory sum: cosine similarities of consecutive frames, summed along the most similar tokens (STA eq. 6); "
        "T frames that repeat each other have T - 1.",
    ),
}
"""Values of the project's own measures. One that is not here is shown under its own name."""


@dataclass(frozen=True)
class Measured:
    """One panel.

    Args:
        name: as in the results; title, unit: for the panel and its axis; scale: from what is stored to the unit;
        get: value and interval of a row, None where it has none; levels: the unreduced model's value by cell.
    """

    name: str
    title: str
    unit: str
    scale: float
    get: Callable[[Row], Point | None]
    levels: Mapping[str, float]


def meaning(name: str) -> Meaning:
    """What a value is called, its unit, and what it says."""
    return MEANINGS.get(name) or Meaning(name.replace("_", " "), "mean over clips")


def accuracies(rows: Sequence[Row]) -> Iterator[Measured]:
    """A panel for each label set."""
    for name in dict.fromkeys(n for row in rows for n in row["accuracy"]):

        def top1(row: Row, name: str = name) -> Point | None:
            a = row["accuracy"].get(name)
            return None if a is None else (a["top1"], a["low"], a["high"])

        compared = {row["cell"]: row["accuracy"].get(name) for row in rows}
        levels = {
            cell: round(a["top1"] - a["diff"], 9) for cell, a in compared.items() if a and a.get("diff") is not None
        }
        yield Measured(name, name, "top-1, %", 100.0, top1, levels)


def measured(rows: Sequence[Row]) -> Iterator[Measured]:
    """A panel for each label set and each value that is one number a clip."""
    yield from accuracies(rows)
    for name in values_of(rows, curves=False):

        def value(row: Row, name: str = name) -> Point | None:
            v = row["values"].get(name)
            return None if v is None or number(v["value"]) is None else (v["value"], v["low"], v["high"])

        known = meaning(name)
        yield Measured(name, known.title, known.unit, known.scale, value, {})


def values_of(rows: Sequence[Row], *, curves: bool) -> list[str]:
    """Names of the measured values that are lists over blocks or frames (``curves``), or single numbers."""
    found = (n for row in rows for n, v in row["values"].items() if isinstance(v["value"], list) == curves)
    return list(dict.fromkeys(found))


def explained(names: Sequence[str]) -> str:
    """The sentences of those values that have one."""
    return " ".join(MEANINGS[name].text for name in names if name in MEANINGS)
