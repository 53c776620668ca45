"""A video through a model frame after frame, gated and in full: what is updated, what it costs, how well both agree."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokred.attach import Attached, attach
from tokred.backbones.spec import BackboneSpec, backbone_info, logits_of
from tokred.backbones.zoo import create_backbone
from tokred.data.container import read_index
from tokred.data.frames import frames_of
from tokred.data.opening import find_videos
from tokred.data.source import LabelSet
from tokred.data.views import Views
from tokred.measure.flops import attention_macs, count, unreduced_plan
from tokred.methods.eventful import Eventful, Work
from tokred.registry import build
from tokred.run.environment import environment
from tokred.run.progress import Progress, Silent
from tokred.streaming.blocks import GATES

GIGA = 1e9
QUARTERS = 4


@dataclass(frozen=True)
class StreamSettings:
    """What to stream; every field is an option of ``tokred stream``.

    Args:
        video: a file; backbone, checkpoint, num_classes: see ``create_backbone``.
        reducer: spec of a gating method.
        stride: frames from one sampled frame to the next; None = the backbone's.
        hop: sampled frames from one clip to the next, for backbones that take clips; None = one tubelet.
        frames: at most so many calls; None = the whole video.
        check: the full model is run on every so-many-th call.
    """

    video: str
    backbone: str = "videomae_vit_nano"
    checkpoint: str | None = None
    reducer: str = "eventful:fraction=0.25"
    stride: int | None = None
    hop: int | None = None
    frames: int | None = None
    check: int = 1
    num_classes: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    seed: int = 0


def stream(settings: StreamSettings, progress: Progress | None = None) -> dict[str, Any]:
    """Run a whole video in memory that does not grow with its length.

    Returns:
        Plain values for JSON: ``rows`` (one a call) and ``summary``; multiply-adds in MAC, time in ms, memory in bytes.
    Raises:
        ValueError: bad settings, or a video that cannot be used.
    """
    say = progress if progress is not None else Silent()
    path = _one_video(settings.video)
    method = build(settings.reducer)
    if not isinstance(method, Eventful):
        raise ValueError(f"{method.spec} does not gate over time: a gating method is needed, e.g. eventful:r=64")
    torch.manual_seed(settings.seed)
    host = create_backbone(settings.backbone, settings.checkpoint, num_classes=settings.num_classes)
    info = backbone_info(host)
    assert info is not None
    host = host.to(settings.device, getattr(torch, settings.dtype)).eval()
    fast = attach(host, method)
    geometry = fast.geometry
    notes = [*info.notes, *fast.notes]
    hop = settings.hop or geometry.kernel[0]
    stride = settings.stride or info.spec.stride
    full = count(geometry, unreduced_plan(geometry)).macs
    rows: list[dict[str, Any]] = []
    total = _calls(read_index(path).packets, stride, info.spec.frames, hop, settings.frames)
    with say.phase("streaming", total) as advance, torch.inference_mode():
        for number, (frame, clip) in enumerate(_clips(path, info.spec, stride, hop, settings.frames, notes)):
            pixels = info.spec.arrange(clip.to(settings.device, getattr(torch, settings.dtype)))
            rows.append(_call(fast, method, pixels, full, info.spec.label_sets, number % settings.check == 0))
            rows[-1]["frame"] = frame
            advance(1)
    return {
        "video": path.name,
        "backbone": settings.backbone,
        "reducer": method.spec,
        "tokens": geometry.tokens,
        "steps_per_call": geometry.steps,
        "unreduced_macs": full,
        "state_bytes": method.state_bytes(),
        "hop": hop if info.spec.frames > 1 else 1,
        "stride": stride,
        "rows": rows,
        "summary": _summary(rows, full),
        "notes": notes,
        "environment": environment(settings.device, settings.dtype),
    }


def _call(
    fast: Attached, method: Eventful, pixels: Tensor, full: int, label_sets: tuple[LabelSet, ...], check: bool
) -> dict[str, Any]:
    """One frame or clip through both models."""
    geometry = fast.geometry
    began = time.perf_counter()
    with method.recorded() as log:
        ours = logits_of(fast(pixels)).float()
    row: dict[str, Any] = {"ms": 1e3 * (time.perf_counter() - began)}
    plain = attention_macs(geometry, geometry.tokens) + 2 * geometry.dim * geometry.mlp_hidden * geometry.tokens
    row["macs"] = full + sum(work.macs - plain for work in log)
    row["official"] = {key: sum(work.official[key] for work in log) for key in log[0].official} if log else {}
    row["flush"] = all(work.flush for work in log)
    row["updates"] = _updates(log)
    if check:
        began = time.perf_counter()
        theirs = logits_of(fast.host(pixels)).float()
        row["full_ms"] = 1e3 * (time.perf_counter() - began)
        row |= _agreement(ours, theirs, label_sets)
    return row


def _updates(log: list[Work]) -> dict[str, float] | None:
    """Tokens that each gate sent, mean over the blocks that were not flushed; None where all were."""
    steady = [work for work in log if not work.flush]
    if not steady:
        return None
    return {gate: sum(work.sent.get(gate, 0) for work in steady) / len(steady) for gate in GATES}


def _agreement(ours: Tensor, theirs: Tensor, label_sets: tuple[LabelSet, ...]) -> dict[str, Any]:
    """Same top-1 class in every label set, KL(full || gated) in nats summed over them, relative error of the logits."""
    slices = [slice(s.offset, s.offset + len(s.classes)) for s in label_sets] or [slice(None)]
    p, q = ([x[:, s].log_softmax(dim=-1) for s in slices] for x in (theirs, ours))
    same = all(bool((a.argmax(1) == b.argmax(1)).all()) for a, b in zip(p, q, strict=True))
    kl = sum(float((a.exp() * (a - b)).sum()) for a, b in zip(p, q, strict=True))
    error = float((ours - theirs).norm() / theirs.norm().clamp_min(torch.finfo(torch.float32).tiny))
    return {"same_top1": same, "kl": max(0.0, kl), "logit_error": error}


def _summary(rows: list[dict[str, Any]], full: int) -> dict[str, Any]:
    first = [row for row in rows if row["flush"]]
    steady = [row for row in rows if not row["flush"]]
    checked = [row for row in rows if "kl" in row]
    summary: dict[str, Any] = {
        "calls": len(rows),
        "flush_macs": _mean(first, "macs"),
        "steady_macs": _mean(steady, "macs"),
        "mean_macs": _mean(rows, "macs"),
        "steady_share": _share(_mean(steady, "macs"), full),
        "mean_share": _share(_mean(rows, "macs"), full),
        "flush_ms": _mean(first, "ms"),
        "steady_ms": _mean(steady, "ms"),
        "full_ms": _mean(checked, "full_ms"),
        "same_top1": _mean(checked, "same_top1"),
        "kl": _mean(checked, "kl"),
        "logit_error": _mean(checked, "logit_error"),
        "checked": len(checked),
    }
    sent = [row["updates"] for row in steady if row["updates"]]
    summary["updates"] = {gate: sum(u[gate] for u in sent) / len(sent) for gate in GATES} if sent else None
    bounds = [len(checked) * i // QUARTERS for i in range(QUARTERS + 1)]
    parts = [checked[a:b] for a, b in pairwise(bounds) if b > a]
    summary["quarters"] = [{key: _mean(p, key) for key in ("same_top1", "kl", "logit_error")} for p in parts]
    return summary


def _clips(
    path: Path, spec: BackboneSpec, stride: int, hop: int, limit: int | None, notes: list[str]
) -> Iterator[tuple[int, Tensor]]:
    """Number of the newest frame, and (1, 3, T, H, W) normalised: each frame, or overlapping clips."""
    views = Views(spec.size, spec.mean, spec.std)
    step = 1 if spec.frames == 1 else hop
    held: deque[Tensor] = deque(maxlen=spec.frames)
    due, given = spec.frames, 0
    for seen, picture in enumerate(frames_of(path, stride=stride), start=1):
        held.append(views.resize(picture))
        if seen < due:
            continue
        yield (seen - 1) * stride, views.normalise(views.cut(torch.stack(list(held)))[0][None])
        due += step
        given += 1
        if given == limit:
            return
    if not given:
        short = len(held)
        held.extend([held[-1]] * (spec.frames - short))
        notes.append(f"the video has {short} sampled frames, the last is repeated to {spec.frames}")
        yield (short - 1) * stride, views.normalise(views.cut(torch.stack(list(held)))[0][None])


def _calls(packets: int, stride: int, frames: int, hop: int, limit: int | None) -> int:
    """How many calls a video of so many frames gives, about."""
    sampled = -(-packets // stride)
    calls = sampled if frames == 1 else max(1, (sampled - frames) // hop + 1)
    return calls if limit is None else min(calls, limit)


def _one_video(path: str) -> Path:
    found = find_videos(Path(path))
    if len(found.items) != 1:
        raise ValueError(f"{path} holds {len(found.items)} videos: one video file is needed")
    return found.items[0].path


def _mean(rows: list[dict[str, Any]], key: str) -> float | None:
    values = [float(row[key]) for row in rows if key in row]
    return sum(values) / len(values) if values else None


def _share(macs: float | None, full: int) -> float | None:
    return None if macs is None else macs / full
