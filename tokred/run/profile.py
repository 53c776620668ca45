"""Multiply-adds, parameters and tokens per block of a backbone with a reducer; on request also time and memory."""

from __future__ import annotations

from typing import Any

import torch

from tokred.attach import attach, check_needs
from tokred.backbones import adapter_for
from tokred.backbones.spec import backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.budget import solve
from tokred.dry import dry_run
from tokred.measure.flops import count, unreduced_plan
from tokred.registry import build


def profile(
    backbone: str,
    reducer: str = "none",
    *,
    budget: float | None = None,
    timed: bool = False,
    batch_size: int = 1,
    num_classes: int | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
) -> dict[str, Any]:
    """Count one forward of one clip, from shapes alone; the model is built without memory unless it is timed.

    Args:
        backbone: name for ``create_backbone``; reducer: spec string.
        budget: solve the reducer's strength for this share of the unreduced multiply-adds.
        timed: also run the real model on random clips, interleaved with the unreduced one.
    Returns:
        Plain values for JSON: multiply-adds in MAC, times in ms, memory in bytes.
    Raises:
        ValueError: unknown names, impossible settings.
    """
    with torch.device("cpu" if timed else "meta"):
        model = create_backbone(backbone, num_classes=num_classes, pretrained=False)
    adapter = adapter_for(model)
    adapter.check(model)
    geometry = adapter.geometry(model)
    method = build(reducer)
    check_needs(method, adapter, model)
    notes: list[str] = []
    if budget is not None:
        solution = solve(method, geometry, budget)
        method, notes = solution.reducer, list(solution.notes)
    plan = dry_run(method, geometry)
    report = count(geometry, plan)
    full = count(geometry, unreduced_plan(geometry))
    found: dict[str, Any] = {
        "backbone": backbone,
        "reducer": method.spec,
        "parameters": sum(p.numel() for p in model.parameters()) + sum(p.numel() for p in method.parameters()),
        "input": list(geometry.input_shape()),
        **report.as_dict(),
        "unreduced_macs": full.macs,
        "share": report.macs / full.macs,
        "implied_speedup": report.implied_speedup(full),
        "tokens": {"attention": list(plan.attention), "mlp": list(plan.mlp), "final": plan.final},
        "steps": [vars(step) for step in plan.steps],
        "notes": [*plan.notes, *method.describe(geometry), *notes],
    }
    if timed:
        info = backbone_info(model)
        assert info is not None
        found["measured"] = _measure(
            model, method, geometry.input_shape(batch_size), info.spec.layout, device, dtype, seed
        )
    return found


def _measure(
    model: torch.nn.Module, method: Any, shape: tuple[int, ...], layout: str, device: str, dtype: str, seed: int
) -> dict[str, Any]:
    from tokred.measure.latency import interleave, speedup
    from tokred.measure.memory import peak_memory

    model = model.to(device, getattr(torch, dtype)).eval()
    fast = attach(model, method)
    clips = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(device, getattr(torch, dtype))
    if layout == "BTCHW":
        clips = clips.transpose(1, 2)
    bare = torch.inference_mode()(lambda: model(clips))
    reduced = torch.inference_mode()(lambda: fast(clips))
    run = interleave({"unreduced": bare, "reduced": reduced}, device=device, max_seconds=30.0, max_rounds=15)
    base, ours = run.timings
    ratio = speedup(ours, base)
    memory = {name: peak_memory(call, device=device) for name, call in (("unreduced", bare), ("reduced", reduced))}
    return {
        "batch": shape[0],
        "threads": run.threads,
        "unreduced_ms": base.median_ms,
        "reduced_ms": ours.median_ms,
        "reduced_iqr_ms": ours.iqr_ms,
        "speedup": ratio.value,
        "speedup_low": ratio.low,
        "speedup_high": ratio.high,
        "peak_bytes": {name: m.peak_bytes for name, m in memory.items()},
        "memory_method": memory["reduced"].method,
        "notes": list(run.notes),
    }
