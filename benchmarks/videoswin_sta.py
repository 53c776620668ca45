"""Do fewer multiply-adds become less time on VideoSwin? STA and sta_window against the same model unreduced.

    python benchmarks/videoswin_sta.py                            # VideoSwin-T and -S, r = 256, one thread
    python benchmarks/videoswin_sta.py --models tiny --r 192 320

Per model one interleaved run of: unreduced, STA skipping queries of replicas, STA in the published form, sta_window at
the same drops. Each measured speed-up stands next to the one that the multiply-adds of that form imply. Writes
benchmarks/results/videoswin_sta_DEVICE.json and prints the targets with what was reached. Weights are random: time does
not depend on them, but how evenly STA's drops fall on windows does, and trained weights may spread them otherwise.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tokred
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.latency import interleave, speedup
from tokred.measure.memory import peak_memory
from tokred.methods import STA, STAWindow
from tokred.run.environment import environment

RESULTS = Path(__file__).parent / "results"
SHARE_OF_IMPLIED = 0.85


def reduced(name: str, clips: Tensor, r: int, threads: int, seconds: float) -> dict[str, Any]:
    """Measured and implied speed-ups of one model at one strength."""
    torch.set_num_threads(threads)
    host = tokred.create_backbone(name, pretrained=False).to(clips.device, clips.dtype)
    forms = {
        "sta": tokred.attach(host, STA(r=r)),
        "sta, published form": tokred.attach(host, STA(r=r), skip_replicas=False),
        "sta_window": tokred.attach(host, STAWindow(r=r)),
    }
    calls = {"unreduced": torch.inference_mode()(lambda: host(clips))}
    calls |= {key: torch.inference_mode()(lambda model=model: model(clips)) for key, model in forms.items()}
    difference = (calls["sta"]() - calls["sta, published form"]()).abs().max().item()
    peaks = {key: peak_memory(call, device=clips.device).peak_mib for key, call in calls.items()}
    run = interleave(calls, device=clips.device, num_threads=threads, max_seconds=seconds, max_rounds=15, warmup=1)
    geometry = forms["sta"].geometry
    full = count(geometry, unreduced_plan(geometry))
    rows = []
    for key, timing in zip(calls, run.timings, strict=True):
        row = {"form": key, "ms": timing.median_ms, "iqr_ms": timing.iqr_ms, "peak_mib": peaks[key]}
        if key in forms:
            plan = forms[key].plan
            assert plan is not None
            report = count(geometry, plan)
            macs = report.macs if "published" in key else report.lean_macs
            ratio = speedup(timing, run.timings[0])
            implied = full.macs / macs
            row |= {"gmac": report.gmac, "gmac_of_this_form": macs / 1e9, "implied": implied}
            row |= {"speedup": ratio.value, "low": ratio.low, "high": ratio.high}
            row |= {"share_of_implied": ratio.value / implied}
        rows.append(row)
    return {
        "model": name,
        "r": r,
        "threads": threads,
        "dtype": str(clips.dtype).removeprefix("torch."),
        "clips": list(clips.shape),
        "rounds": run.timings[0].rounds,
        "rows": rows,
        "difference_of_forms": difference,
        "notes": list(run.notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of STA on the video Swin.")
    parser.add_argument("--models", nargs="+", default=["tiny", "small"], choices=["tiny", "small", "base", "base_w16"])
    parser.add_argument("--r", nargs="+", type=int, default=[256])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--seconds", type=float, default=90.0, help="per model, strength and thread count")
    arguments = parser.parse_args()
    clips = torch.randn(arguments.batch, 3, 32, 224, 224, generator=torch.Generator().manual_seed(0))
    clips = clips.to(arguments.device, getattr(torch, arguments.dtype))
    found, targets = [], []
    for model in arguments.models:
        for r in arguments.r:
            for threads in arguments.threads:
                found.append(reduced(f"videoswin_{model}", clips, r, threads, arguments.seconds))
                for row in found[-1]["rows"][1:]:
                    where = f"videoswin_{model}, r = {r}, {threads} threads, {row['form']}"
                    print(
                        f"{where}: {row['speedup']:.2f}x [{row['low']:.2f}, {row['high']:.2f}], implied "
                        f"{row['implied']:.2f}x: {row['share_of_implied']:.2f} of it",
                        flush=True,
                    )
                    if row["form"] == "sta":
                        share = row["share_of_implied"]
                        targets.append(
                            {
                                "target": where,
                                "reached": share,
                                "wanted": SHARE_OF_IMPLIED,
                                "met": share >= SHARE_OF_IMPLIED,
                            }
                        )
    for line in targets:
        print(f"{'met' if line['met'] else 'MISSED'}: {line['target']}: {line['reached']:.3f} of the implied speed-up")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"videoswin_sta_{torch.device(arguments.device).type}.json"
    content = {"environment": environment(arguments.device, arguments.dtype), "targets": targets, "reduced": found}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
