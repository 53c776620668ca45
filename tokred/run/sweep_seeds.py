"""Points that were run with several seeds: all their clips together, and how far the seeds are apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tokred.run.cell import PREDICT
from tokred.run.evaluate import Arrays, Predictions
from tokred.run.grid import SEED
from tokred.run.sweep_plan import PlannedCell, SweepPlan
from tokred.run.sweep_pool import Part, per_clip, pooled_difference, pooled_top1, scored
from tokred.run.sweep_words import words

Cells = list[PlannedCell]


def over_seeds(
    plan: SweepPlan,
    predictions: Callable[[str | None], Predictions | None],
    arrays: Callable[[str | None], Arrays | None],
    means: Callable[[Arrays], dict[str, dict[str, Any]]],
    axes: Sequence[Sequence[str]] = (),
) -> list[dict[str, Any]]:
    """Every point that was computed with several seeds, in the order of the grid.

    Args:
        predictions, arrays: what a cell found, by its id; means: over clips, of what a measure found.
        axes: the keys of each.
    Returns:
        ``label``, ``point`` (without the seed), ``seeds`` (those that are computed), ``accuracy``: label set ->
        ``top1``, ``low``, ``high``, ``n``, difference to the unreduced model on the same clips ``diff``,
        ``diff_low``, ``diff_high``, ``p`` (None for itself), all over the clips of all seeds; ``top1_sd`` and
        ``diff_sd``: standard deviation between seeds (n - 1), ``seed_top1`` and ``seed_diff``: of each seed.
        ``values``: name -> value, low, high, n, ``sd``, for other measures; lists for curves. Seeds that share their
        clips (data that are no generated ones) are averaged clip by clip: they are no further clips.
    """
    grouped: dict[str, dict[str, Cells]] = {}
    for planned in plan.cells:
        if planned.cell is not None and planned.group is not None and arrays(planned.id) is not None:
            rest = {k: v for k, v in planned.point.values.items() if k != SEED}
            grouped.setdefault(str(rest), {}).setdefault(planned.cell.measure, []).append(planned)
    found = []
    for measured in grouped.values():
        cells = [planned for one in measured.values() for planned in one]
        seeds = sorted({planned.point.values[SEED] for planned in cells})
        if len(seeds) < 2:
            continue
        point = {k: v for k, v in cells[0].point.values.items() if k != SEED}
        entry: dict[str, Any] = {"label": words(point, axes), "point": point, "seeds": seeds}
        entry |= {"accuracy": _accuracy(measured.get(PREDICT, []), predictions), "values": {}}
        for measure, own in measured.items():
            if measure != PREDICT:
                entry["values"] |= _values(own, arrays, means)
        if entry["accuracy"] or entry["values"]:
            found.append(entry)
    return found


def _accuracy(cells: Cells, predictions: Callable[[str | None], Predictions | None]) -> dict[str, Any]:
    parts: dict[str, list[Part]] = {}
    for planned in cells:
        ours = predictions(planned.id)
        theirs = None if planned.id == planned.baseline else predictions(planned.baseline)
        if ours is None or planned.group is None:
            continue
        for label_set in planned.group.label_sets:
            if label_set.name in ours.labels:
                other = None if theirs is None else scored(theirs, label_set)
                part = Part(planned.group.data, scored(ours, label_set), other)
                parts.setdefault(label_set.name, []).append(part)
    return {name: _pooled(found) for name, found in parts.items() if len(found) > 1}


def _pooled(parts: list[Part]) -> dict[str, Any]:
    top1 = pooled_top1(parts)
    own = [part.ours.top1.value for part in parts]
    gaps = [None if part.theirs is None else part.ours.top1.value - part.theirs.top1.value for part in parts]
    known = [gap for gap in gaps if gap is not None]
    numbers: dict[str, Any] = {"top1": top1.value, "low": top1.low, "high": top1.high, "n": top1.n}
    numbers |= {"diff": None, "diff_low": None, "diff_high": None, "p": None}
    if (pooled := pooled_difference(parts)) is not None:
        gap, p = pooled
        numbers |= {"diff": gap.value, "diff_low": gap.low, "diff_high": gap.high, "p": p}
    return {**numbers, "top1_sd": _sd(own), "diff_sd": _sd(known), "seed_top1": own, "seed_diff": gaps}


def _values(
    cells: Cells,
    arrays: Callable[[str | None], Arrays | None],
    means: Callable[[Arrays], dict[str, dict[str, Any]]],
) -> dict[str, Any]:
    parts: dict[str, list[tuple[str, np.ndarray]]] = {}
    each: dict[str, list[Any]] = {}
    for planned in cells:
        measured = arrays(planned.id)
        if measured is None or planned.group is None:
            continue
        for name, numbers in means(measured).items():
            parts.setdefault(name, []).append((planned.group.data, measured[name]))
            each.setdefault(name, []).append(numbers["value"])
    found: dict[str, Any] = {}
    for name, rows in parts.items():
        # Curves of other lengths, on other backbones, have no mean.
        if len(rows) > 1 and len({values.shape[1:] for _, values in rows}) == 1:
            found[name] = {**means({name: per_clip(rows)})[name], "sd": _spread(each[name])}
    return found


def _spread(values: list[Any]) -> Any:
    """Standard deviation between seeds; of curves entry by entry."""
    if isinstance(values[0], list):
        return [_sd(entry) for entry in zip(*values, strict=True)]
    return _sd(values)


def _sd(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None
