"""What a paper printed beside what was found: numbers, and the signs of its effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tokred.data.source import LabelSet
from tokred.measure.statistics import bootstrap
from tokred.run.cell import PREDICT
from tokred.run.evaluate import LABELS, Arrays, Predictions
from tokred.run.grid import SEED, matches
from tokred.run.sweep_plan import PlannedCell, SweepPlan
from tokred.run.sweep_pool import Part, per_clip, pooled_difference, scored, signed_rank
from tokred.run.sweep_spec import Effect, Printed, SweepSpec

ALPHA = 0.05
SAME, FAINT, CONTRADICTS, OPEN = "same sign", "same sign, p >= 0.05", "contradicts", "not resolved"
EQUAL, DIFFERS = "printed equal", "printed equal, ours differs"
UNPRINTED, MISSING = "not printed", "not computed"
VERDICTS = (SAME, FAINT, CONTRADICTS, DIFFERS, OPEN, EQUAL, UNPRINTED, MISSING)
"""All of them, in the order in which they are counted."""


def printed_for(spec: SweepSpec, values: dict[str, Any]) -> dict[str, Any] | None:
    """The printed row of a point; None without one."""
    if spec.paper is None:
        return None
    row = next((row for row in spec.paper.rows if matches(values, row.at)), None)
    return None if row is None else {"value": row.value, "gflops": row.gflops, "note": row.note}


def effects_of(
    spec: SweepSpec,
    plan: SweepPlan,
    predictions: Callable[[str | None], Predictions | None],
    arrays: Callable[[str | None], Arrays | None],
    axes: Sequence[Mapping[str, Any]] = (),
    labels: str | None = None,
) -> list[dict[str, Any]]:
    """Every printed effect with ours: the difference between two points on the same clips, over all label sets.

    Seeds are pooled, because their clips are others; of the other axes that ``from`` and ``to`` leave open each point
    is an entry. Without ``effects`` in the file each printed row is compared with the first.

    Args:
        predictions, arrays: what a cell found, by its id; axes: of the profile, where a label speaks for other keys.
        labels: the label set or measured value that the printed numbers are of; None = hold all against them.
    Returns:
        One entry per effect, open point and label set (or measured value): from, to, at, label, paper (printed
        difference), ours, low, high, p, n, verdict: "same sign" (p < 0.05), "same sign, p >= 0.05", "contradicts" (the
        other sign, p < 0.05), "printed equal, ours differs" (p < 0.05: a contradiction too), "not resolved" (the other
        sign or none, p >= 0.05), "printed equal" (p >= 0.05), "not printed", "not computed".
    """
    found = []
    for effect, difference in _printed(spec):
        entries = []
        for at, pairs in _pairs(effect, plan, axes).items():
            numbers = paired_accuracies(pairs, predictions) or paired_values(pairs, arrays)
            entries += [{"at": dict(at), **one} for one in numbers if labels in (None, one["label"])]
        for entry in entries or [dict(NOTHING)]:
            found.append(
                {
                    "from": effect.from_,
                    "to": effect.to,
                    "note": effect.note,
                    "paper": difference,
                    **entry,
                    "verdict": verdict(difference, entry["ours"], entry["p"]),
                }
            )
    return found


def verdict(paper: float | None, ours: float | None, p: float | None) -> str:
    """Whether an effect has the printed sign.

    Args:
        paper, ours: differences; p: of ours.
    """
    if ours is None:
        return MISSING
    if paper is None:
        return UNPRINTED
    clear = bool(ours) and p is not None and p < ALPHA
    if not paper:
        return DIFFERS if clear else EQUAL
    if ours * paper > 0:
        return SAME if clear else FAINT
    return CONTRADICTS if clear else OPEN


def verdict_counts(effects: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How often each verdict was reached, those that were not left out.

    Args:
        effects: as `effects_of` returns them.
    """
    reached = [effect["verdict"] for effect in effects]
    return {one: reached.count(one) for one in VERDICTS if one in reached}


def _printed(spec: SweepSpec) -> Iterator[tuple[Effect, float | None]]:
    if spec.paper is None:
        return
    rows = spec.paper.rows
    if spec.paper.effects is not None:
        for effect in spec.paper.effects:
            yield effect, _difference(_row(rows, effect.from_), _row(rows, effect.to))
        return
    valued = [row for row in rows if row.value is not None]
    for row in valued[1:]:
        yield Effect.model_validate({"from": valued[0].at, "to": row.at}), _difference(valued[0], row)


def _row(rows: list[Printed], at: dict[str, Any]) -> Printed | None:
    return next((row for row in rows if row.at == at), None)


def _difference(first: Printed | None, second: Printed | None) -> float | None:
    if first is None or second is None or first.value is None or second.value is None:
        return None
    return round(second.value - first.value, 6)


Pairs = list[tuple[PlannedCell, PlannedCell]]
Open = tuple[tuple[str, Any], ...]
NOTHING: dict[str, Any] = {"at": {}, "label": None, "ours": None, "low": None, "high": None, "p": None, "n": 0}


def _pairs(effect: Effect, plan: SweepPlan, axes: Sequence[Mapping[str, Any]]) -> dict[Open, Pairs]:
    """Cells of ``from`` and ``to`` that agree in everything else, by what the two leave open, the seed apart."""
    named = {*effect.from_, *effect.to}
    if "label" in named:
        # What moves together with a label is told by it.
        named |= {key for axis in axes if "label" in axis for key in axis}

    def rest(planned: PlannedCell) -> tuple[str, str]:
        assert planned.cell is not None
        others = sorted((k, str(v)) for k, v in planned.point.values.items() if k not in named)
        return planned.cell.measure, str(others)

    chosen = [p for p in plan.cells if p.cell is not None]
    firsts = {rest(p): p for p in chosen if matches(p.point.values, effect.from_)}
    found: dict[Open, Pairs] = {}
    for planned in chosen:
        if matches(planned.point.values, effect.to) and rest(planned) in firsts:
            at = {k: v for k, v in planned.point.values.items() if k not in named and k != SEED}
            key = tuple((k, str(v) if isinstance(v, (list, dict)) else v) for k, v in at.items())
            found.setdefault(key, []).append((firsts[rest(planned)], planned))
    return found


def paired_accuracies(pairs: Pairs, predictions: Callable[[str | None], Predictions | None]) -> list[dict[str, Any]]:
    found = [
        (one.group.data, first, second, label_sets)
        for one, other in pairs
        if one.cell is not None
        and one.group is not None
        and one.cell.measure == PREDICT
        and (first := predictions(one.id)) is not None
        and (second := predictions(other.id)) is not None
        and (label_sets := _shared(one, other))
    ]
    names = {label_set.name: label_set for *_, label_sets in found for label_set in label_sets}
    entries = []
    for name, label_set in names.items():
        usable = [(data, a, b) for data, a, b, _ in found if name in a.labels and name in b.labels]
        parts = [Part(data, scored(b, label_set), scored(a, label_set)) for data, a, b in usable]
        pooled = pooled_difference(parts)
        if pooled is not None:
            gap, p = pooled
            entries.append({"label": name, "ours": gap.value, "low": gap.low, "high": gap.high, "p": p, "n": gap.n})
    return entries


def _shared(one: PlannedCell, other: PlannedCell) -> tuple[LabelSet, ...]:
    """Label sets of both, where they are on the same clips."""
    if one.group is None or other.group is None or one.group.data != other.group.data:
        return ()
    return tuple(s for s in one.group.label_sets if s in other.group.label_sets)


def paired_values(pairs: Pairs, arrays: Callable[[str | None], Arrays | None]) -> list[dict[str, Any]]:
    """Other measures: the mean difference per clip; of curves, of their mean."""
    gaps: dict[str, list[tuple[str, np.ndarray]]] = {}
    for one, other in pairs:
        if one.cell is None or one.cell.measure == PREDICT or one.group is None or other.group is None:
            continue
        if one.group.data != other.group.data:
            continue
        first, second = arrays(one.id), arrays(other.id)
        if first is None or second is None:
            continue
        for name in first.keys() & second.keys():
            a, b = first[name], second[name]
            if name == "items" or name.startswith(LABELS) or a.shape != b.shape or a.ndim > 2:
                continue
            if np.issubdtype(a.dtype, np.floating):
                gaps.setdefault(name, []).append((one.group.data, (b - a).reshape(len(a), -1).mean(axis=1)))
    entries = []
    for name, parts in sorted(gaps.items()):
        found = per_clip(parts)
        values = found[np.isfinite(found)]
        if len(values):
            entries.append({"label": name, **_tested(values)})
    return entries


def _tested(values: np.ndarray) -> dict[str, Any]:
    interval = bootstrap(values)
    return {
        "ours": interval.value,
        "low": interval.low,
        "high": interval.high,
        "p": signed_rank(values),
        "n": interval.n,
    }
