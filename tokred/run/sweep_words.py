"""A point of a grid in words, and its notes without repeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def words(point: Mapping[str, Any], axes: Iterable[Iterable[str]], seeds: Sequence[Any] = ()) -> str:
    """A point by its label and what no label speaks for, the seed only where there are several.

    Args:
        point: axis key -> value; axes: the keys of each axis; seeds: of the sweep.
    """
    told = {key for axis in map(set, axes) if "label" in axis for key in axis} - {"label"}
    if point.get("reducer") == "none" and point.get("budget") is None:
        told |= {"budget"}  # the unreduced model has no strength to speak of
    parts = [
        _word(value) if key in ("reducer", "label") else f"{key.removeprefix('reducer.')}={_word(value)}"
        for key, value in point.items()
        if key not in told and (key != "seed" or len(seeds) > 1)
    ]
    return ", ".join(parts) or "all"


def said_once(notes: Iterable[str]) -> list[str]:
    """Notes in their order, without those that stand before, alone or as a clause of a joined one ("a; b").

    Joined notes come from planning; running the same model gives their clauses again, one by one.
    """
    kept: list[str] = []
    said: set[str] = set()
    for note in notes:
        if note not in said:
            kept.append(note)
            said |= {note, *note.split("; ")}
    return kept


def _word(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_word, value)) + "]"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
