"""The main job: every reducer on one backbone and one set of clips, paired with the unreduced model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokred.backbones import adapter_for
from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.spec import BackboneInfo, BackboneSpec, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.data.cache import MaterialisedSource, materialise
from tokred.data.labels import answerable
from tokred.data.opening import open_source
from tokred.measure.latency import LatencyRun, interleave
from tokred.run.environment import code_digest
from tokred.run.evaluate import one_thread, predict
from tokred.run.progress import Progress, Silent
from tokred.run.results import Job, assemble
from tokred.run.rows import Row, plan_rows
from tokred.run.settings import CompareSettings
from tokred.run.store import CellStore, cell_id, write_atomic

BATCH_GMAC = 8.0
"""Without a batch size, a batch takes about so many GMAC, and at most 8 clips: what stays in cache."""

BATCH_TOKENS = 4096
"""Of images with few tokens a batch may hold more than 8: so many tokens in all."""

PREPARE_BATCH = 32


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
    rows = plan_rows(host, geometry, settings.reducers, settings.budgets, settings.allow_untrained)
    source = _prepare(settings, info.spec, geometry.classes, say)
    try:
        return _run(settings, out, say, host, info, rows, source)
    finally:
        source.close()


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
    small = max(8, BATCH_TOKENS // rows[0].model.geometry.tokens)
    batch = settings.batch_size or max(1, min(small, int(BATCH_GMAC / unreduced.gmac)))
    weights = weights_digest(host)
    shared = {
        "weights": weights,
        "backbone": settings.backbone,
        "data": source.digest(),
        "dtype": settings.dtype,
        "device": settings.device,
        "batch": batch,
        "code": code_digest(),
    }
    store = CellStore(out)
    jobs = [
        Job(row, cell_id({**shared, "reducer": row.spec, "budget": row.budget, "parameters": _parameters(row)}))
        for row in rows
    ]
    todo = []
    for job in jobs:
        found = None if settings.fresh else store.read(job.id)
        if found is not None:
            job.seconds, job.predictions = found[0]["seconds"], found[1]
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


def _prepare(settings: CompareSettings, spec: BackboneSpec, logits: int, say: Progress) -> MaterialisedSource:
    """Decode or generate every clip once: all rows see the very same pixels."""
    opened = open_source(
        settings.data,
        frames=spec.frames,
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        clips=settings.clips,
        views=settings.views,
        sampling=settings.sampling,
        stride=settings.stride or spec.stride,
        seed=settings.seed,
        animate=settings.animate,
    )
    with say.phase("preparing clips", len(opened)) as advance:
        done = 0

        def count_up(items: int, total: int) -> None:
            nonlocal done
            advance(items - done)
            done = items

        # Many small operations: sharing each among threads costs more than it brings.
        with one_thread():
            source = materialise(opened, batch_size=PREPARE_BATCH, progress=count_up)
    source.label_sets, notes = answerable(source.label_sets, spec.label_sets, logits)
    source.notes += notes
    return source


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
    store.write(job.id, {"reducer": job.row.spec, "budget": job.row.budget, "seconds": seconds}, predictions)
    job.seconds, job.predictions = seconds, predictions


def _parameters(row: Row) -> str | None:
    """Digest of a learned reducer's parameters, which its settings do not name; None where it has none."""
    if row.model is None or not row.learned:
        return None
    return weights_digest(row.model.reducer)


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
