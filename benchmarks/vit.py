"""Speed of reducers on the video ViT against what their multiply-adds imply.

    python benchmarks/vit.py                                   # CPU, ViT-S and ViT-B, one thread and all threads
    python benchmarks/vit.py --device cuda --models large --batch 32 --dtypes bfloat16 float16

Every ratio comes from one interleaved run (bare, attached, reduced, bare, ...): these machines are shared and absolute
times drift. Writes benchmarks/results/vit_DEVICE.json and prints the targets with what was reached. Weights are
random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tokred
from tokred.attach import Attached
from tokred.budget import macs_of
from tokred.driver import Action, perform, run_blocks
from tokred.measure.latency import interleave, speedup
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.run.environment import environment
from tokred.tokens import Tokens

SPECS = ("sta:r=64", "tome:r=65", "tome:r=100")
RESULTS = Path(__file__).parent / "results"


def step_share(fast: Attached, clips: Tensor, rounds: int = 5) -> float:
    """Time inside the reduction steps over the time of the whole forward, median over rounds (CPU)."""
    shares = []
    adapter, host = fast.adapter, fast.host
    for _ in range(rounds):
        inside = 0.0

        def timed(action: Action, tokens: Tokens, probe: Probe, site: Site) -> Tokens:
            nonlocal inside
            began = time.perf_counter()
            after = perform(action, tokens, probe, site)
            inside += time.perf_counter() - began
            return after

        began = time.perf_counter()
        tokens = adapter.embed(host, clips, None)
        tokens, _ = run_blocks(adapter, host, tokens, fast._actions, proportional=False, perform=timed)
        adapter.features(host, tokens, "mean")
        shares.append(inside / (time.perf_counter() - began))
    return sorted(shares)[len(shares) // 2]


def bench(size: str, threads: int, device: str, dtype: str, batch: int, seconds: float) -> dict[str, Any]:
    """One model at one thread count: speed-ups, the cost of being attached, the share of the steps."""
    torch.set_num_threads(threads)
    model = tokred.create_backbone(f"videomae_vit_{size}", pretrained=False).to(device, getattr(torch, dtype))
    clips = torch.randn(batch, 3, 16, 224, 224, generator=torch.Generator().manual_seed(0))
    clips = clips.to(device, getattr(torch, dtype))
    attached = {spec: tokred.attach(model, tokred.build(spec)) for spec in ("sta:r=0", *SPECS)}
    geometry = attached["sta:r=0"].geometry
    full = macs_of(tokred.build("none"), geometry)
    calls = {"bare": torch.inference_mode()(lambda: model(clips))}
    for spec, fast in attached.items():
        calls[spec] = torch.inference_mode()(lambda fast=fast: fast(clips))
    run = interleave(calls, device=device, num_threads=threads, max_seconds=seconds, max_rounds=15, warmup=1)
    base = run.timings[0]
    rows = []
    for timing in run.timings[1:]:
        ratio = speedup(timing, base)
        report = macs_of(tokred.build(timing.name), geometry)
        implied = report.implied_speedup(full)
        row = {
            "reducer": timing.name,
            "gmac": report.gmac,
            "implied": implied,
            "speedup": ratio.value,
            "low": ratio.low,
            "high": ratio.high,
            "of_implied": ratio.value / implied,
            "ms": timing.median_ms,
            "iqr_ms": timing.iqr_ms,
            "clips_per_s": timing.per_second(batch),
        }
        if timing.name != "sta:r=0" and device == "cpu":
            with torch.inference_mode():
                row["step_share"] = step_share(attached[timing.name], clips)
        rows.append(row)
    return {
        "model": size,
        "threads": threads,
        "dtype": dtype,
        "batch": batch,
        "rounds": base.rounds,
        "bare_ms": base.median_ms,
        "bare_iqr_ms": base.iqr_ms,
        "bare_clips_per_s": base.per_second(batch),
        "rows": rows,
        "notes": list(run.notes),
    }


def targets(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was aimed at, what was reached, and whether it was."""
    rows = {row["reducer"]: row for row in found["rows"]}
    where = f"ViT-{found['model']}, {found['threads']} threads, {found['dtype']}, batch {found['batch']}"
    sta, zero = rows["sta:r=64"], rows["sta:r=0"]
    wanted = [
        (f"{where}: STA r=64 at least the implied {sta['implied']:.2f}x", sta["speedup"], sta["implied"], 1),
        (f"{where}: attached at strength zero costs under 1 %", 1 / zero["speedup"] - 1, 0.01, -1),
    ]
    for spec in ("tome:r=65", "tome:r=100"):
        row = rows[spec]
        wanted.append((f"{where}: {spec} at least 0.97 of implied {row['implied']:.2f}x", row["of_implied"], 0.97, 1))
    if "step_share" in sta:
        wanted.append((f"{where}: STA steps under 3 % of the forward", sta["step_share"], 0.03, -1))
    return [
        {"target": text, "reached": reached, "wanted": goal, "met": (reached - goal) * sign >= 0}
        for text, reached, goal, sign in wanted
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of reducers on the video ViT.")
    parser.add_argument("--models", nargs="+", default=["small", "base"], choices=["small", "base", "large", "huge"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=90.0, help="per model and thread count")
    arguments = parser.parse_args()
    everything = torch.get_num_threads()
    threads = sorted({1, everything}) if arguments.device == "cpu" else [everything]
    found, reached = [], []
    for model in arguments.models:
        for dtype in arguments.dtypes:
            for count in threads:
                found.append(bench(model, count, arguments.device, dtype, arguments.batch, arguments.seconds))
                reached += targets(found[-1])
                for line in reached[-len(targets(found[-1])) :]:
                    verdict = "met" if line["met"] else "MISSED"
                    print(
                        f"{verdict:>6}  {line['target']}: {line['reached']:.3f} (wanted {line['wanted']:.3f})",
                        flush=True,
                    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"vit_{torch.device(arguments.device).type}.json"
    content = {
        "environment": environment(arguments.device, ",".join(arguments.dtypes)),
        "targets": reached,
        "runs": found,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
