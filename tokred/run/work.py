"""Compute one cell, or a part of one: what every engine runs, in whatever process."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from tokred.attach import attach
from tokred.backbones import adapter_for
from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.spec import BackboneSpec, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.data.cache import MaterialisedSource
from tokred.data.parts import part_of
from tokred.data.source import Source
from tokred.registry import build
from tokred.run.cell import Cell, plain
from tokred.run.clips import ClipSettings, open_clips, prepare
from tokred.run.evaluate import Arrays, collect
from tokred.run.measures import MEASURES
from tokred.run.reducer_digest import reducer_digest

KEPT_SOURCES = 2
KEPT_HOSTS = 4


@dataclass(frozen=True)
class Task:
    """A cell to compute.

    Args:
        id: of the cell; weights, data: the digests that went into it.
        reducer: what the reducer is besides its settings, from ``reducer_digest``.
        items: (first, behind the last) item of the data that this part computes, None = all.
        part: digest of these items alone, so that nobody has to read the others to check them.
    """

    id: str
    cell: Cell
    weights: str
    data: str
    reducer: str | None = None
    items: tuple[int, int] | None = None
    part: str | None = None


@dataclass(frozen=True)
class Done:
    """What a task found: ``record`` for people, ``arrays`` (V, ...) for every clip; none for a part without clips."""

    task: Task
    record: dict[str, Any]
    arrays: Arrays


@dataclass(frozen=True)
class Failed:
    """Why a task found nothing: in one line, and where."""

    task: Task
    reason: str
    traceback: str = ""


def work(task: Task, advance: Callable[[int], None] | None = None) -> Done | Failed:
    """Compute a task; whatever goes wrong is the result, so that it never stops the others.

    The host and the clips stay in memory for the next task of this process.
    """
    started = time.perf_counter()
    try:
        arrays, notes, failures = _compute(task, advance)
    except (Exception, SystemExit) as error:
        return Failed(task, f"{type(error).__name__}: {error}", traceback.format_exc())
    seconds = time.perf_counter() - started
    record = {**plain(task.cell), "seconds": seconds, "notes": notes, "failures": failures}
    return Done(task, record, arrays)


def _compute(task: Task, advance: Callable[[int], None] | None) -> tuple[Arrays, list[str], list[dict[str, str]]]:
    cell = task.cell
    host, spec, weights, classes = _host(cell.backbone, cell.checkpoint, cell.num_classes, cell.device, cell.dtype)
    if weights != task.weights:
        raise ValueError(f"the weights of {cell.backbone} are not those that this run was planned with")
    source = _source(cell.clips, spec, classes, task.items)
    if source.digest() != (task.data if task.part is None else task.part):
        raise ValueError(f"the clips of {cell.clips.data} are not those that this run was planned with")
    model = attach(host, build(cell.reducer))
    if reducer_digest(model.reducer) != task.reducer:
        raise ValueError(f"{cell.reducer} is not what this run was planned with: its file or its weights have changed")
    arrays: Arrays = {}
    if source.rows or task.items is None:
        arrays = collect(
            model,
            source,
            spec,
            MEASURES[cell.measure],
            batch_size=cell.batch,
            device=cell.device,
            dtype=getattr(torch, cell.dtype),
            advance=advance,
        )
    failures = [{"path": failure.path, "reason": failure.reason} for failure in source.failures]
    return arrays, [*model.notes, *source.notes], failures


@lru_cache(maxsize=KEPT_HOSTS)
def _host(
    backbone: str, checkpoint: str | None, num_classes: int | None, device: str, dtype: str
) -> tuple[nn.Module, BackboneSpec, str, int]:
    """The host, how it wants its clips, the digest of its weights and the length of its logits."""
    host = create_backbone(backbone, checkpoint, num_classes=num_classes)
    info = backbone_info(host)
    assert info is not None
    host = host.to(device, getattr(torch, dtype)).eval()
    return host, info.spec, weights_digest(host), adapter_for(host).geometry(host).classes


def opened(cell: Cell) -> Source:
    """The clips of a cell, none decoded, as `work` opens them."""
    return open_clips(cell.clips, _host(cell.backbone, cell.checkpoint, cell.num_classes, "cpu", "float32")[1])


_SOURCES: dict[tuple[Any, ...], MaterialisedSource] = {}


def _source(clips: ClipSettings, spec: BackboneSpec, classes: int, items: tuple[int, int] | None) -> MaterialisedSource:
    key = (clips, spec.frames, spec.size, spec.mean, spec.std, spec.stride, spec.label_sets, classes, items)
    if key in _SOURCES:
        return _SOURCES[key]
    while len(_SOURCES) >= KEPT_SOURCES:
        _SOURCES.pop(next(iter(_SOURCES))).close()
    source = open_clips(clips, spec)
    _SOURCES[key] = prepare(source if items is None else part_of(source, range(*items)), spec, classes)
    return _SOURCES[key]
