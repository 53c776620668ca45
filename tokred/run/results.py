"""The results of a comparison as plain values: what results.json holds."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from torch import nn

from tokred.backbones.spec import BackboneInfo
from tokred.data.cache import MaterialisedSource
from tokred.data.source import Failure, LabelSet
from tokred.measure.latency import LatencyRun
from tokred.run.broken import broken_items, unusable, why_broken, without
from tokred.run.environment import environment
from tokred.run.evaluate import Predictions
from tokred.run.rows import Row, default_budgets
from tokred.run.scores import score_row, speed_entry
from tokred.run.settings import CompareSettings


@dataclass
class Job:
    """One row with its cell: ``seconds`` and ``predictions`` are there once it is finished."""

    row: Row
    id: str
    seconds: float | None = None
    predictions: Predictions | None = None


def assemble(
    settings: CompareSettings,
    jobs: list[Job],
    timings: LatencyRun | None,
    source: MaterialisedSource,
    host: nn.Module,
    info: BackboneInfo,
    *,
    batch: int,
    timed: int,
    weights: str,
    complete: bool,
) -> dict[str, Any]:
    """All that was found, with what it was found with; NaN and infinities become None.

    Args:
        jobs: the unreduced model first.
        timings: one interleaved run of all finished jobs, by id.
        batch: clips per call; timed: clips per timed call; weights: digest of the host's weights.
        complete: False when the run was stopped.
    """
    first = jobs[0].row
    assert first.report is not None
    assert first.model is not None
    left_out = _finite_only(jobs, source)
    results = {
        "schema": 1,
        "kind": "compare",
        "title": f"{settings.backbone} on {source.name}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["tokred", *sys.argv[1:]]),
        "complete": complete,
        "environment": environment(settings.device, settings.dtype),
        "backbone": {
            "name": settings.backbone,
            "checkpoint": settings.checkpoint,
            "weights": info.weights,
            "weights_sha": weights,
            "gmac": first.report.gmac,
            "params": sum(p.numel() for p in host.parameters()),
            "tokens": first.model.geometry.tokens,
            "notes": list(info.notes),
        },
        "data": {
            "name": source.name,
            "unit": "image" if info.spec.frames == 1 else "clip",
            "digest": source.digest(),
            "items": len(source),
            "clips": source.rows,
            "label_sets": [{"name": s.name, "classes": list(s.classes)} for s in source.label_sets],
            "failures": [{"path": f.path, "reason": f.reason} for f in [*source.failures, *left_out]],
            "notes": list(source.notes),
        },
        "settings": {
            "budgets": list(settings.budgets or default_budgets(first.model.geometry)),
            "budget_by": settings.budget_by,
            "seed": settings.seed,
            "batch_size": batch,
            "clips": settings.clips,
            "views": list(settings.views),
            "sampling": settings.sampling,
            "timing": None
            if timings is None
            else {"threads": timings.threads, "batch": timed, "notes": list(timings.notes)},
        },
        "rows": _rows(jobs, timings, source, timed, info.spec.label_sets),
    }
    found = plain_values(results)
    assert isinstance(found, dict)
    return found


def failures_of(results: dict[str, Any], *, asked_for: bool) -> list[Failure]:
    """Everything that went wrong in a run: unusable items and failed rows.

    Args:
        asked_for: the user named the reducers, so that a refused one is a failure too.
    """
    items = [Failure(f["path"], f["reason"]) for f in results["data"]["failures"]]
    bad = ("failed", "refused") if asked_for else ("failed",)
    rows = [Failure(r["reducer"], r["reason"]) for r in results["rows"] if r["status"] in bad]
    return items + rows


def _finite_only(jobs: list[Job], source: MaterialisedSource) -> list[Failure]:
    """Leave out clips that the unreduced model has no finite answer to, for all rows alike: rows are paired. A row that
    is not finite on the others has failed; the cells keep what was computed.

    Returns:
        The clips left out, each with the reason.
    """
    unreduced = jobs[0].predictions
    if unreduced is None:
        return []
    broken = broken_items(unreduced)
    everything = len(broken) == len(set(unreduced.items.tolist()))
    for job in jobs:
        if job.predictions is None:
            continue
        if everything:
            job.row.reason = "the unreduced model's answers are NaN or infinite on every clip: nothing can be compared"
        elif broken:
            job.predictions = without(job.predictions, broken)
        if not everything and job.predictions is not None:
            job.row.reason = why_broken(job.predictions, source.name_of)
        if job.row.reason is not None:
            job.predictions = None
    return [] if everything else unusable(broken, source.name_of)


def _rows(
    jobs: list[Job],
    timings: LatencyRun | None,
    source: MaterialisedSource,
    batch: int,
    tasks: tuple[LabelSet, ...],
) -> list[dict[str, Any]]:
    first = jobs[0]
    assert first.row.report is not None
    speeds = {} if timings is None else {timing.name: timing for timing in timings.timings}
    entries = []
    for job in jobs:
        entry = _entry(job, first.row.report.macs)
        if job.predictions is not None and first.predictions is not None:
            reference = job is first
            scores = score_row(job.predictions, first.predictions, source.label_sets, tasks, is_reference=reference)
            entry.update(scores)
        if job.id in speeds and first.id in speeds:
            entry["speed"] = speed_entry(speeds[job.id], speeds[first.id], batch, entry["gmac_share"])
        entries.append(entry)
    return entries


def _entry(job: Job, full_macs: int) -> dict[str, Any]:
    row, report = job.row, job.row.report
    plan = row.model.plan if row.model is not None else None
    return {
        "id": job.id,
        "method": row.method,
        "label": row.method,
        "reducer": row.spec,
        "budget": row.budget,
        "status": _status(job),
        "reason": row.reason,
        "learned": row.learned,
        "trained": row.trained,
        "gmac": None if report is None else report.gmac,
        "gmac_share": None if report is None else report.macs / full_macs,
        "reduction_gmac": None if report is None else report.reduction / 1e9,
        "executed_reduction_gmac": None if report is None else report.executed_reduction / 1e9,
        "tokens_final": None if plan is None else plan.final,
        "tokens_per_block": None if plan is None else list(plan.attention),
        "accuracy": {},
        "agreement": None,
        "kl": None,
        "feature_distance": None,
        "speed": None,
        "notes": row.notes,
        "seconds": job.seconds,
    }


def _status(job: Job) -> str:
    if job.predictions is not None:
        return "done"
    if job.row.model is None:
        return "refused"
    return "failed" if job.row.reason is not None else "pending"


def plain_values(value: Any) -> Any:
    """The value with NaN and infinities as None, which JSON does not have."""
    if isinstance(value, dict):
        return {k: plain_values(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
