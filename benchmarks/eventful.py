"""Time of a steady frame under Eventful gating against the full model, on a timm ViT-B frame by frame.

    python benchmarks/eventful.py

Every ratio comes from one interleaved run. Frames are random pictures in turn, so every token changes on every frame
and the gates always send r of them. Weights are random: time does not depend on them. Writes
benchmarks/results/eventful_DEVICE.json and prints the target with what was reached.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import tokred
from tokred.backbones import adapter_for
from tokred.measure.flops import attention_macs, count, unreduced_plan
from tokred.measure.latency import interleave, speedup
from tokred.methods.eventful import Eventful
from tokred.run.environment import environment

RESULTS = Path(__file__).parent / "results"
VARIANTS = ("full", "qk", "tokenwise")
TARGET = 0.5
FRAMES = 4


def steady(model: nn.Module, method: Eventful, frames: list[Tensor]) -> Callable[[], object]:
    """The next frame of a stream that has begun."""
    fast = tokred.attach(model, method)
    turn = itertools.cycle(frames)
    call = torch.inference_mode()(lambda: fast(next(turn)))
    call()
    return call


def frame_macs(model: nn.Module, method: Eventful, frames: list[Tensor]) -> int:
    """Multiply-adds of one steady frame."""
    fast = tokred.attach(model, method)
    g = fast.geometry
    plain = attention_macs(g, g.tokens) + 2 * g.dim * g.mlp_hidden * g.tokens
    with torch.inference_mode():
        fast(frames[0])
        with method.recorded() as log:
            fast(frames[1])
    return count(g, unreduced_plan(g)).macs + sum(work.macs - plain for work in log)


def bench(threads: int, device: str, seconds: float) -> dict[str, Any]:
    """The full model and every variant at r = N / 4, interleaved."""
    torch.set_num_threads(threads)
    model = tokred.create_backbone("timm/vit_base_patch16_224").to(device)
    geometry = adapter_for(model).geometry(model)
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randn(1, 3, 224, 224, generator=generator).to(device) for _ in range(FRAMES)]
    r = geometry.tokens // 4
    methods = {f"eventful:r={r},variant={variant}": Eventful(r, variant=variant) for variant in VARIANTS}
    turn = itertools.cycle(frames)
    calls: dict[str, Callable[[], object]] = {"full model": torch.inference_mode()(lambda: model(next(turn)))}
    for name, method in methods.items():
        calls[name] = steady(model, method, frames)
    run = interleave(calls, device=device, num_threads=threads, max_seconds=seconds, max_rounds=15, warmup=1)
    base = run.timings[0]
    full = count(geometry, unreduced_plan(geometry)).macs
    rows = []
    for timing in run.timings[1:]:
        ratio = speedup(timing, base)
        macs = frame_macs(model, Eventful(r, variant=methods[timing.name].config["variant"]), frames)
        rows.append(
            {
                "reducer": timing.name,
                "ms": timing.median_ms,
                "iqr_ms": timing.iqr_ms,
                "time_share": 1 / ratio.value,
                "time_share_low": 1 / ratio.high,
                "time_share_high": 1 / ratio.low,
                "macs": macs,
                "macs_share": macs / full,
                "state_bytes": methods[timing.name].state_bytes(),
            }
        )
    return {
        "model": "timm/vit_base_patch16_224",
        "tokens": geometry.tokens,
        "r": r,
        "threads": threads,
        "rounds": base.rounds,
        "full_ms": base.median_ms,
        "full_iqr_ms": base.iqr_ms,
        "rows": rows,
        "notes": list(run.notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a steady frame under Eventful gating.")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, torch.get_num_threads()])
    parser.add_argument("--seconds", type=float, default=90.0, help="per thread count")
    arguments = parser.parse_args()
    found = [bench(threads, arguments.device, arguments.seconds) for threads in sorted(set(arguments.threads))]
    reached = []
    for run in found:
        share = run["rows"][0]["time_share"]
        where = f"{run['rows'][0]['reducer']} on {run['model']}, {run['threads']} threads"
        target = f"{where}: at most {TARGET} of the full model's time per steady frame"
        reached.append({"target": target, "reached": share, "wanted": TARGET, "met": share <= TARGET})
        print(f"{'met' if share <= TARGET else 'MISSED':>6}  {target}: {share:.3f}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"eventful_{torch.device(arguments.device).type}.json"
    content = {"environment": environment(arguments.device, "float32"), "targets": reached, "runs": found}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
