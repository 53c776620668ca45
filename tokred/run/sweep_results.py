"""What a sweep found, as plain values: what sweep.json holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from tokred.data.source import LabelSet
from tokred.measure.calibration import calibration
from tokred.measure.statistics import bootstrap
from tokred.run.cell import PREDICT
from tokred.run.environment import environment
from tokred.run.evaluate import LABELS, Arrays, Predictions
from tokred.run.results import plain_values
from tokred.run.scores import score_row
from tokred.run.store import CellStore
from tokred.run.sweep_differences import differences_of
from tokred.run.sweep_effects import effects_of, printed_for, verdict_counts
from tokred.run.sweep_overlap import SOURCE, overlaps, ranked_by
from tokred.run.sweep_plan import PlannedCell, SweepPlan
from tokred.run.sweep_seeds import over_seeds
from tokred.run.sweep_spec import Settled, SweepSpec
from tokred.run.sweep_words import said_once

SCHEMA = 1
SWEEP = "sweep"
PATCHES = "patches_carried"
"""Share of the patches that some token carries in the end."""

LONGEST = 64
"""Values per clip whose means are kept as a curve; longer ones stay in the cell's file."""


def assemble_sweep(
    spec: SweepSpec,
    settled: Settled,
    plan: SweepPlan,
    store: CellStore,
    *,
    device: str = "cpu",
    complete: bool = True,
    command: str = "",
) -> dict[str, Any]:
    """All that a sweep found so far, paired with the unreduced models and held against what a paper printed.

    Args:
        settled: the spec at the profile that was planned; store: where the cells are.
        complete: False when the run was stopped; command: that made it.
    Returns:
        Plain values; NaN and infinities are None.
    """
    read = _Reader(store)
    rows = [_row(planned, read) | {"paper": printed_for(spec, planned.point.values)} for planned in plan.cells]
    effects = effects_of(spec, plan, read.predictions, read.arrays, settled.axes, settled.labels)
    axes = [list(axis) for axis in settled.axes]
    groups = {id(p.group): p.group for p in (*plan.baselines, *plan.cells) if p.group is not None}
    return plain_values(
        {
            "schema": SCHEMA,
            "kind": SWEEP,
            "name": spec.name,
            "title": spec.title or spec.name,
            "source": spec.source,
            "profile": plan.profile,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "command": command,
            "complete": complete and all(row["status"] in ("done", "excluded") for row in rows),
            "environment": environment(device, settled.base.dtype),
            "axes": axes,
            "seeds": list(settled.seeds),
            "labels": settled.labels,
            "needs": settled.needs,
            "notes": list(plan.notes),
            "paper": None if spec.paper is None else spec.paper.model_dump(by_alias=True),
            "groups": [
                {
                    "backbone": group.backbone,
                    "checkpoint": group.checkpoint,
                    "weights": group.origin,
                    "weights_sha": group.weights,
                    "gmac": group.gmac,
                    "params": group.params,
                    "tokens": group.tokens,
                    "data": group.name,
                    "data_digest": group.data,
                    "items": group.items,
                    "unit": group.unit,
                    "seed": group.clips.seed,
                    "label_sets": [label_set.name for label_set in group.label_sets],
                    "notes": list(group.notes),
                }
                for group in groups.values()
            ],
            "rows": rows,
            "effects": effects,
            "differences": differences_of(plan, read.predictions, read.arrays, settled.axes),
            "verdicts": verdict_counts(effects),
            "overlap": overlaps(plan, read.predictions, read.arrays, axes, settled.labels),
            "overlap_ranks": ranked_by(plan),
            "over_seeds": over_seeds(plan, read.predictions, read.arrays, means, axes),
        }
    )


class _Reader:
    """Finished cells, each read once."""

    def __init__(self, store: CellStore) -> None:
        self.store = store
        self._found: dict[str, tuple[dict[str, Any], Arrays] | None] = {}

    def cell(self, id_: str | None) -> tuple[dict[str, Any], Arrays] | None:
        if id_ is None:
            return None
        if id_ not in self._found:
            found = self._found[id_] = self.store.read(id_)
            if found is not None and SOURCE in found[1]:
                found[1][PATCHES] = (found[1][SOURCE] >= 0).mean(axis=1)
        return self._found[id_]

    def arrays(self, id_: str | None) -> Arrays | None:
        found = self.cell(id_)
        return None if found is None else found[1]

    def predictions(self, id_: str | None) -> Predictions | None:
        arrays = self.arrays(id_)
        return None if arrays is None or "logits" not in arrays else Predictions.of(arrays)


def _row(planned: PlannedCell, read: _Reader) -> dict[str, Any]:
    cell, group, full = planned.cell, planned.group, planned.full
    row: dict[str, Any] = {
        "point": dict(planned.point.values),
        "cell": planned.id,
        "status": "excluded" if cell is None else "pending",
        "reason": planned.point.excluded,
        "method": planned.method,
        "reducer": None if cell is None else cell.reducer,
        "backbone": None if cell is None else cell.backbone,
        "data": None if group is None else group.name,
        "seed": planned.point.values.get("seed"),
        "measure": None if cell is None else cell.measure,
        "budget": planned.budget,
        "gmac": None if planned.report is None else planned.report.gmac,
        "gmac_share": planned.share,
        "full": None if full is None else dict(vars(full)),
        "full_gmac": None if full is None else full.gmac,
        "learned": planned.learned,
        "trained": planned.trained,
        "accuracy": {},
        "agreement": None,
        "kl": None,
        "feature_distance": None,
        "calibration": {},
        "values": {},
        "notes": list(planned.notes),
        "failures": [],
        "seconds": None,
    }
    if cell is None or group is None:
        return row
    found = read.cell(planned.id)
    if found is None:
        failure = read.store.failure(planned.id or "")
        if failure is not None:
            row |= {"status": "failed", "reason": failure.get("reason")}
        return row
    record, arrays = found
    row |= {"status": "done", "seconds": record.get("seconds"), "failures": record.get("failures", [])}
    row["notes"] = said_once([*planned.notes, *record.get("notes", [])])
    if cell.measure != PREDICT:
        row["values"] = means(arrays)
        return row
    unreduced = read.predictions(planned.baseline)
    if unreduced is not None:
        reference = planned.id == planned.baseline
        row |= score_row(Predictions.of(arrays), unreduced, group.label_sets, group.tasks, is_reference=reference)
    row["calibration"] = _calibrations(Predictions.of(arrays), group.label_sets)
    return row


def _calibrations(found: Predictions, label_sets: Sequence[LabelSet]) -> dict[str, dict[str, float]]:
    """Calibration on each label set that the clips have."""
    items, logits = found.items.tolist(), torch.from_numpy(found.logits)
    numbers = {}
    for label_set in label_sets:
        if label_set.name in found.labels:
            one = calibration(logits, torch.from_numpy(found.labels[label_set.name]), items, label_set)
            numbers[label_set.name] = {
                "ece": one.ece.value,
                "ece_low": one.ece.low,
                "ece_high": one.ece.high,
                "brier": one.brier.value,
                "brier_low": one.brier.low,
                "brier_high": one.brier.high,
                "confidence": one.confidence,
                "n": one.ece.n,
            }
    return numbers


def means(arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Means over clips of what a measure found, with bootstrap intervals; short rows are curves, entry by entry.

    Args:
        arrays: (V, ...) per view; values that are not finite are left out, and ``n`` says how many are left.
    Returns:
        name -> value, low, high, n (numbers, or lists of them for curves).
    """
    found: dict[str, dict[str, Any]] = {}
    for name, values in arrays.items():
        if (
            name == "items"
            or name.startswith(LABELS)
            or values.ndim > 2
            or not np.issubdtype(values.dtype, np.floating)
        ):
            continue
        if values.ndim == 1:
            found[name] = _mean(values)
        elif values.shape[1] <= LONGEST:
            columns = [_mean(column) for column in values.T]
            found[name] = {key: [column[key] for column in columns] for key in ("value", "low", "high", "n")}
    return found


def _mean(values: np.ndarray) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {"value": None, "low": None, "high": None, "n": 0}
    interval = bootstrap(finite)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "n": interval.n}
