"""What a paper printed beside what was found: numbers, and the signs of its effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from tokred.data.source import LabelSet
from tokred.measure.accuracy import accuracy, compare
from tokred.measure.statistics import bootstrap
from tokred.run.cell import PREDICT
from tokred.run.evaluate import LABELS, Arrays, Predictions
from tokred.run.grid import SEED, matches
from tokred.run.sweep_plan import PlannedCell, SweepPlan
from tokred.run.sweep_spec import Effect, Printed, SweepSpec

ALPHA = 0.05
SAME, FAINT, CONTRADICTS, OPEN = "same sign", "same sign, p >= 0.05", "contradicts", "not resolved"
EQUAL, UNPRINTED, MISSING = "printed equal", "not printed", "not computed"


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
        other sign, p < 0.05), "not resolved" (the other sign or none, p >= 0.05), "printed equal", "not printed", "not
        computed".
    """
    found = []
    for effect, difference in _printed(spec):
        entries = []
        for at, pairs in _pairs(effect, plan, axes).items():
            numbers = _accuracies(pairs, predictions) or _values(pairs, arrays)
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
    if not paper:
        return EQUAL
    if ours * paper > 0:
        return SAME if p is not None and p < ALPHA else FAINT
    return CONTRADICTS if ours and p is not None and p < ALPHA else OPEN


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


def _accuracies(pairs: Pairs, predictions: Callable[[str | None], Predictions | None]) -> list[dict[str, Any]]:
    found = [
        (first, second, label_sets)
        for one, other in pairs
        if one.cell is not None
        and one.cell.measure == PREDICT
        and (first := predictions(one.id)) is not None
        and (second := predictions(other.id)) is not None
        and (label_sets := _shared(one, other))
    ]
    names = {label_set.name: label_set for *_, label_sets in found for label_set in label_sets}
    entries = []
    for name, label_set in names.items():
        usable = [(a, b) for a, b, _ in found if name in a.labels and name in b.labels]
        if not usable:
            continue
        firsts = _pooled([a for a, _ in usable], label_set)
        seconds = _pooled([b for _, b in usable], label_set)
        paired = compare(accuracy(*seconds, label_set), accuracy(*firsts, label_set))
        gap = paired.difference
        entries.append({"label": name, "ours": gap.value, "low": gap.low, "high": gap.high, "p": paired.p, "n": gap.n})
    return entries


def _shared(one: PlannedCell, other: PlannedCell) -> tuple[LabelSet, ...]:
    """Label sets of both, where they are on the same clips."""
    if one.group is None or other.group is None or one.group.data != other.group.data:
        return ()
    return tuple(s for s in one.group.label_sets if s in other.group.label_sets)


def _pooled(found: list[Predictions], label_set: LabelSet) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Logits, labels and items of several cells; items get numbers of their own."""
    logits, labels, items, start = [], [], [], 0
    for predictions in found:
        logits.append(predictions.logits)
        labels.append(predictions.labels[label_set.name])
        items.append(predictions.items + start)
        start += int(predictions.items.max()) + 1
    joined = np.concatenate(logits), np.concatenate(labels), np.concatenate(items)
    return torch.from_numpy(joined[0]), torch.from_numpy(joined[1]), joined[2].tolist()


def _values(pairs: Pairs, arrays: Callable[[str | None], Arrays | None]) -> list[dict[str, Any]]:
    """Other measures: the mean difference per clip; of curves, of their mean."""
    gaps: dict[str, list[np.ndarray]] = {}
    for one, other in pairs:
        if one.cell is None or one.cell.measure == PREDICT:
            continue
        first, second = arrays(one.id), arrays(other.id)
        if first is None or second is None:
            continue
        for name in first.keys() & second.keys():
            a, b = first[name], second[name]
            if name == "items" or name.startswith(LABELS) or a.shape != b.shape or a.ndim > 2:
                continue
            if np.issubdtype(a.dtype, np.floating):
                difference = (b - a).reshape(len(a), -1).mean(axis=1)
                gaps.setdefault(name, []).append(difference[np.isfinite(difference)])
    entries = []
    for name, parts in sorted(gaps.items()):
        values = np.concatenate(parts)
        if len(values):
            entries.append({"label": name, **_tested(values)})
    return entries


def _tested(values: np.ndarray) -> dict[str, Any]:
    from scipy.stats import wilcoxon

    interval = bootstrap(values)
    p = float(wilcoxon(values).pvalue) if np.any(values) else 1.0
    return {"ours": interval.value, "low": interval.low, "high": interval.high, "p": p, "n": interval.n}
