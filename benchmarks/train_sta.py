"""How much shorter is a training step with STA switched on?

    python benchmarks/train_sta.py                       # the nano recipes and a ViT-S, one thread
    python benchmarks/train_sta.py --models small --r 48 --batch 2 --device cuda

Steps with and without STA take turns in one process; the ratio of their times has a bootstrap interval and stands next
to the ratio of the multiply-adds. "recipe" runs experiments/train_nano_sta.yaml and its control as ``tokred train``:
batch 32, bf16 copies of float32 weights, clips rendered in the step. "nano" and "small" are forward, loss, backward and
AdamW alone, in float32 with fused attention, on clips that are there already. Weights are random: time does not depend
on them. Writes benchmarks/results/train_sta_DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import tokred
from tokred.attach import Attached
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.latency import interleave, speedup
from tokred.methods import STA
from tokred.run.environment import environment
from tokred.run.train import Run
from tokred.run.train_spec import TrainSpec, load_spec
from tokred.run.train_step import Workers, workers

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
MODELS = {"nano": "videomae_vit_nano", "small": "videomae_vit_small"}
SIZES = {"nano": (16, 64), "small": (16, 224)}
"""Frames and pixels per side."""

DEFAULT_R = {"nano": 22, "small": 64}
"""Tokens dropped per frame at the first stage: about half of the multiply-adds."""

Step = Callable[[], object]


def share_of_macs(model: Attached) -> float:
    """Multiply-adds of a forward with the reducer, as a share of those without."""
    assert model.plan is not None
    return count(model.geometry, model.plan).macs / count(model.geometry, unreduced_plan(model.geometry)).macs


def plain_step(model: nn.Module, clips: torch.Tensor) -> Step:
    """Forward, cross-entropy, backward and AdamW on clips that are there."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(clips), labels).backward()
        optimizer.step()

    return step


def plain_steps(name: str, r: int, batch: int, device: str) -> tuple[dict[str, Step], float, dict[str, Any]]:
    """Both forms of a model's step, the share of multiply-adds, and what was run."""
    frames, side = SIZES[name]
    clips = torch.randn(batch, 3, frames, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    plain, host = (tokred.create_backbone(MODELS[name], pretrained=False).to(device).train() for _ in range(2))
    fast = tokred.attach(host, STA(r=r))
    steps = {"without": plain_step(plain, clips), "with STA": plain_step(fast, clips)}
    told = {"model": MODELS[name], "batch": batch, "dtype": "float32", "attention": "fused", "rendering": False}
    return steps, share_of_macs(fast), told


def recipe_steps(folder: Path, crew: Workers, device: str) -> tuple[dict[str, Step], float, dict[str, Any]]:
    """The steps of the two recipes' last stage, from random weights."""
    runs = {}
    for name, recipe in (("without", "train_nano_sta_control"), ("with STA", "train_nano_sta")):
        spec: TrainSpec = load_spec(ROOT / "experiments" / f"{recipe}.yaml").model_copy(update={"start": None})
        place = folder / recipe
        place.mkdir()
        run = Run(spec, place, False, torch.device(device), crew, print)
        run.step = spec.steps - spec.stages[-1].steps
        runs[name] = run
    fast = runs["with STA"].trainee.model
    assert isinstance(fast, Attached)
    spec = runs["without"].spec
    told = {"model": "the recipes", "batch": spec.batch_size, "dtype": spec.precision, "attention": spec.attention}

    def stepper(run: Run) -> Step:
        def step() -> None:
            run.step = min(run.step, spec.steps - 1)
            run.advance()

        return step

    steps = {name: stepper(run) for name, run in runs.items()}
    return steps, share_of_macs(fast), told | {"rendering": True, "micro_batch": spec.micro_batch}


def measured(
    steps: dict[str, Step], share: float, told: dict[str, Any], r: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Times and their ratio, beside the share of the multiply-adds."""
    run = interleave(
        steps,
        device=arguments.device,
        num_threads=arguments.threads,
        max_seconds=arguments.seconds,
        max_rounds=arguments.rounds,
        warmup=1,
    )
    plain, fast = run.timings
    faster = speedup(fast, plain)
    row = told | {"r": r, "threads": arguments.threads, "rounds": plain.rounds, "notes": list(run.notes)}
    row |= {"ms_without": plain.median_ms, "iqr_without": plain.iqr_ms, "ms_with": fast.median_ms}
    row |= {"iqr_with": fast.iqr_ms, "share_of_macs": share, "share_of_time": 1 / faster.value}
    row |= {"low": 1 / faster.high, "high": 1 / faster.low}
    print(
        f"{row['model']}, batch {row['batch']}, {row['dtype']}, sta:r={r}: a step takes {row['share_of_time']:.3f} "
        f"[{row['low']:.3f}, {row['high']:.3f}] of the time without, at {share:.3f} of the multiply-adds "
        f"({plain.median_ms:.0f} and {fast.median_ms:.0f} ms, {plain.rounds} rounds)",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of a training step with and without STA.")
    parser.add_argument("--models", nargs="+", default=["recipe", "nano", "small"], choices=["recipe", *MODELS])
    parser.add_argument("--r", type=int, help="instead of what halves the multiply-adds; not for recipe")
    parser.add_argument("--batch", type=int, help="default 8 (nano) and 1 (small); not for recipe")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=120.0, help="per model")
    parser.add_argument("--rounds", type=int, default=15, help="at most, per model")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder, workers(arguments.threads) as crew:
        for name in arguments.models:
            if name == "recipe":
                r = DEFAULT_R["nano"]
                steps, share, told = recipe_steps(Path(folder), crew, arguments.device)
            else:
                r = arguments.r or DEFAULT_R[name]
                batch = arguments.batch or {"nano": 8, "small": 1}[name]
                steps, share, told = plain_steps(name, r, batch, arguments.device)
            rows.append(measured(steps, share, told, r, arguments))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"train_sta_{torch.device(arguments.device).type}.json"
    content = {"environment": environment(arguments.device, "as told per row"), "steps": rows}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
