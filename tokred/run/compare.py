"""The main job: every reducer on one backbone and one set of clips, paired with the unreduced model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.backbones import adapter_for
from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.geometry import Geometry
from tokred.backbones.spec import BackboneInfo, BackboneSpec, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.data.cache import MaterialisedSource
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.latency import LatencyRun, interleave
from tokred.run.cell import Cell, batch_for, plain
from tokred.run.clips import open_clips, prepare
from tokred.run.evaluate import Predictions, predict
from tokred.run.progress import Progress, Silent
from tokred.run.reducer_digest import reducer_digest
from tokred.run.results import Job, assemble
from tokred.run.rows import Row, plan_rows
from tokred.run.settings import CompareSettings
from tokred.run.store import CellStore, write_atomic
from tokred.run.store_lock import alone_in
from tokred.run.timed_budget import TimedBudget


def compare(settings: CompareSettings, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Run, or continue, a comparison and write ``results.json`` into ``out``.

    Args:
        out: run folder; cells that an earlier run of the same settings finished are read from it.
    Returns:
        The results (see ``tokred.run.results``); ``complete`` is False after Ctrl-C, when the finished rows are kept.
    Raises:
        ValueError: bad settings; nothing is computed then.
    """
    say = progress if progress is not None else Silent()
    host = create_backbone(settings.backbone, settings.checkpoint, num_classes=settings.num_classes)
    info = backbone_info(host)
    assert info is not None
    host = host.to(settings.device, getattr(torch, settings.dtype)).eval()
    geometry = adapter_for(host).geometry(host)
    # By the clock the clips are needed before the rows are planned; else settings are refused before any are prepared.
    timed = settings.budget_by == "time"
    rows = [] if timed else plan_rows(host, geometry, settings.reducers, settings.budgets, settings.allow_untrained)
    _refuse_in_vain(rows, settings)
    source = _prepare(settings, info.spec, geometry.classes, say)
    try:
        if timed:
            say.note("solving budgets by the clock: on a busy machine their settings drift")
            clips = _some_clips(source, info.spec, settings, geometry)
            solver = TimedBudget(host, geometry, clips, settings.device, folder=out)
            rows = plan_rows(host, geometry, settings.reducers, settings.budgets, settings.allow_untrained, solver)
        with alone_in(out / "cells", say):
            return _run(settings, out, say, host, info, rows, source)
    finally:
        source.close()


def _refuse_in_vain(rows: list[Row], settings: CompareSettings) -> None:
    """Raises ValueError where none of the reducers that were asked for can run: the unreduced model alone compares
    nothing."""
    asked = rows[1:]
    if settings.reducers is None or not asked or any(row.model is not None for row in asked):
        return
    reasons = dict.fromkeys(str(row.reason) for row in asked)
    raise ValueError(f"{settings.backbone} can have none of the reducers: {'; '.join(reasons)}")


def _run(
    settings: CompareSettings,
    out: Path,
    say: Progress,
    host: nn.Module,
    info: BackboneInfo,
    rows: list[Row],
    source: MaterialisedSource,
) -> dict[str, Any]:
    unreduced = rows[0].report
    assert unreduced is not None
    assert rows[0].model is not None
    batch = settings.batch_size or batch_for(unreduced.gmac, rows[0].model.geometry.tokens)
    weights, data = weights_digest(host), source.digest()
    store = CellStore(out)
    jobs = [Job(row, _cell(settings, row, batch).id(weights, data, _parameters(row))) for row in rows]
    todo = []
    for job in jobs:
        found = None if settings.fresh else store.read(job.id)
        if found is not None:
            job.seconds, job.predictions = found[0]["seconds"], Predictions.of(found[1])
        elif job.row.model is not None:
            todo.append(job)
    kept = sum(job.predictions is not None for job in jobs)
    if kept:
        say.note(
            f"{kept} of {kept + len(todo)} rows are kept from an earlier run in {out} (--fresh computes them again)"
        )
    complete, timings = True, None
    try:
        if source.rows:
            with say.phase("comparing", len(todo) * source.rows) as advance:
                for job in todo:
                    _compute(job, source, info.spec, store, batch, settings, advance)
            finished = [job for job in jobs if job.predictions is not None]
            if settings.timing_seconds > 0 and jobs[0] in finished:
                with say.phase("timing, interleaved", 1) as advance:
                    timings = _time(finished, source, info.spec, batch, settings)
                    advance(1)
    except KeyboardInterrupt:
        complete = False
    results = assemble(
        settings,
        jobs,
        timings,
        source,
        host,
        info,
        batch=batch,
        timed=timing_batch(batch),
        weights=weights,
        complete=complete,
    )
    write_atomic(out / "results.json", json.dumps(results, indent=1, allow_nan=False).encode())
    return results


def _some_clips(
    source: MaterialisedSource, spec: BackboneSpec, settings: CompareSettings, geometry: Geometry
) -> Tensor:
    gmac = count(geometry, unreduced_plan(geometry)).gmac
    batch = next(iter(source.batches(timing_batch(settings.batch_size or batch_for(gmac, geometry.tokens)))), None)
    if batch is None:
        raise ValueError(f"{source.name} gave no clip that can be used, so no time can be measured")
    return spec.arrange(batch.clips.to(settings.device, getattr(torch, settings.dtype)))


def _prepare(settings: CompareSettings, spec: BackboneSpec, logits: int, say: Progress) -> MaterialisedSource:
    opened = open_clips(settings.clip_settings, spec)
    with say.phase("preparing clips", len(opened)) as advance:
        return prepare(opened, spec, logits, advance)


def _compute(
    job: Job,
    source: MaterialisedSource,
    spec: BackboneSpec,
    store: CellStore,
    batch: int,
    settings: CompareSettings,
    advance: Callable[[int], None],
) -> None:
    assert job.row.model is not None
    started = time.perf_counter()
    try:
        predictions = predict(
            job.row.model,
            source,
            spec,
            batch_size=batch,
            device=settings.device,
            dtype=getattr(torch, settings.dtype),
            advance=advance,
        )
    except Exception as error:
        # One failed row never stops the others; it is shown with its reason and computed again next time.
        job.row.reason = f"{type(error).__name__}: {error}"
        return
    seconds = time.perf_counter() - started
    record = {**plain(_cell(settings, job.row, batch)), "budget": job.row.budget, "seconds": seconds}
    store.write(job.id, record, predictions.arrays)
    job.seconds, job.predictions = seconds, predictions


def _cell(settings: CompareSettings, row: Row, batch: int) -> Cell:
    return Cell(
        backbone=settings.backbone,
        reducer=row.spec,
        clips=settings.clip_settings,
        checkpoint=settings.checkpoint,
        num_classes=settings.num_classes,
        batch=batch,
        device=settings.device,
        dtype=settings.dtype,
    )


def _parameters(row: Row) -> str | None:
    return None if row.model is None else reducer_digest(row.model.reducer)


def timing_batch(batch: int) -> int:
    """Clips per timed call: half a batch, so that many interleaved rounds fit the time."""
    return max(1, batch // 2)


def _time(
    jobs: list[Job], source: MaterialisedSource, spec: BackboneSpec, batch: int, settings: CompareSettings
) -> LatencyRun:
    first = next(iter(source.batches(timing_batch(batch))))
    clips = spec.arrange(first.clips.to(settings.device, getattr(torch, settings.dtype)))

    def call(job: Job) -> Callable[[], object]:
        model = job.row.model
        assert model is not None

        def forward() -> object:
            model.reset()
            return model(clips)

        return torch.inference_mode()(forward)

    return interleave(
        {job.id: call(job) for job in jobs},
        device=settings.device,
        max_seconds=settings.timing_seconds,
        max_rounds=25,
        warmup=1,
    )
