"""Each point of an ablation against the first one, on the same clips: what its bars show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tokred.run.evaluate import Arrays, Predictions
from tokred.run.grid import SEED
from tokred.run.sweep_effects import Pairs, paired_accuracies, paired_values
from tokred.run.sweep_plan import PlannedCell, SweepPlan

CONDITIONS = {"budget", "corrupt"}
"""Axes that say under which condition a setting is asked for; the first setting is another one for each."""


def differences_of(
    plan: SweepPlan,
    predictions: Callable[[str | None], Predictions | None],
    arrays: Callable[[str | None], Arrays | None],
    axes: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The difference of every point to the first one of the grid under the same conditions; seeds are pooled.

    Args:
        predictions, arrays: what a cell found, by its id; axes: of the profile.
    Returns:
        One entry per point and label set (or measured value): from, to (values without the seed), at (empty: all is in
        them), label, ours, low, high, p, n. Empty where not exactly one axis is a setting: there is no first point.
    """
    conditions = {key for axis in axes for key in axis if set(axis) <= CONDITIONS}
    if sum(not set(axis) <= CONDITIONS for axis in axes) != 1:
        return []
    firsts: dict[str, str] = {}
    at: dict[tuple[str, str], PlannedCell] = {}
    pairs: dict[tuple[str, str, str], Pairs] = {}
    for planned in plan.cells:
        if planned.cell is None or planned.group is None:
            continue
        values = planned.point.values
        point = str(sorted((key, str(v)) for key, v in values.items() if key != SEED))
        condition = str(sorted((key, str(values.get(key))) for key in conditions))
        first = firsts.setdefault(condition, point)
        here = f"{planned.cell.measure} {values.get(SEED)}"
        at[point, here] = planned
        start = at.get((first, here))
        if first == point or start is None:
            continue
        pairs.setdefault((first, point, planned.cell.measure), []).append((start, planned))
    found = []
    for pooled in pairs.values():
        first_cell, other = pooled[0]
        ends = {"from": _without_seed(first_cell), "to": _without_seed(other), "at": {}}
        found += [{**ends, **one} for one in paired_accuracies(pooled, predictions) or paired_values(pooled, arrays)]
    return found


def _without_seed(planned: PlannedCell) -> dict[str, Any]:
    return {key: value for key, value in planned.point.values.items() if key != SEED}
