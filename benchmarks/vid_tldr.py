"""Speed and memory of vid-TLDR's attention and saliency against two dense attention maps per block.

    python benchmarks/vid_tldr.py                  # CPU, one thread and all threads
    python benchmarks/vid_tldr.py --device cuda --batch 16 --dtypes float32 bfloat16

Dense: what the published method does in every block, merging or not, in plain PyTorch: logits of all queries with all
keys, a softmax for the saliency and one with the masses for the output, entropy of the head-averaged first map.
Streamed: what this package does: fused attention with the masses as bias, and in merging blocks output and entropies
together in blocks of query rows. Twice: fused attention and then a second pass for the entropies, which is what runs
where the one pass does not (``tokred.backbones.rows.one_pass``). "Block" is one merging block; "forward" is the
attention of all blocks of a ViT-B whose tokens shrink.
Outputs and saliencies are compared before they are timed, and all times come from interleaved runs. With one CPU thread
the ratio of the thread's own CPU time is the verdict: other processes disturb it less than the clock on the wall.
Writes benchmarks/results/vid_tldr_DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokred.backbones.attention import attend, attend_fused
from tokred.measure.latency import LatencyRun, interleave
from tokred.measure.memory import peak_memory
from tokred.methods.vid_tldr import saliency_of
from tokred.run.environment import environment
from tokred.saliency import RowsWanted, row_statistics

RESULTS = Path(__file__).parent / "results"
WANTED = 2.0

SIZES = {
    "ViT-B, 8 x 14 x 14": (12, 1568, 64),
    "ViT-B, 12 x 14 x 14": (12, 2352, 64),
}
"""Name -> heads, tokens, width of a head."""

FORWARD, DEPTH, MERGED = "ViT-B, 8 x 14 x 14", 12, (400, 133, 67)
"""A forward: the published 600, 200, 100 of 2352 tokens, scaled to 1568."""


def dense(q: Tensor, k: Tensor, v: Tensor, log_size: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention's output (B, H, N, d) and the negative entropies (B, N), through two maps."""
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    unbiased = logits.softmax(dim=-1)
    biased = (logits if log_size is None else logits + log_size[:, None, None].to(logits.dtype)).softmax(dim=-1)
    mean = unbiased.mean(dim=1).float()
    return biased @ v, (mean * mean.log()).sum(dim=-1)


def streamed(q: Tensor, k: Tensor, v: Tensor, log_size: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same by the package's rule; the entropies carry the constant log N."""
    scale = q.shape[-1] ** -0.5
    out, found = attend(q, k, v, scale, log_size, RowsWanted(received=False, entropy=True))
    if found is None:
        return twice(q, k, v, log_size)
    assert found.sharpness is not None
    return out, found.sharpness


def twice(q: Tensor, k: Tensor, v: Tensor, log_size: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same by fused attention and a second pass over the rows."""
    scale = q.shape[-1] ** -0.5
    out = attend_fused(q, k, v, scale, log_size)
    sharpness = row_statistics(q, k, scale, received=False, entropy=True).sharpness
    assert sharpness is not None
    return out, sharpness


@dataclass(frozen=True)
class Layer:
    """Queries, keys, values and masses of one block, and whether it merges."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_size: Tensor | None
    merges: bool


def forward_dense(layers: list[Layer]) -> None:
    """Two maps in every block."""
    for layer in layers:
        dense(layer.q, layer.k, layer.v, layer.log_size)


def forward_streamed(layers: list[Layer]) -> None:
    """Fused attention, and entropies where they are needed."""
    for layer in layers:
        (streamed if layer.merges else fused)(layer.q, layer.k, layer.v, layer.log_size)


def cpu_times(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU time of this thread for each call, in turns, ms."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.thread_time()
            call()
            times[name].append(1000 * (time.thread_time() - began))
    return times


def verdict(calls: Mapping[str, Callable[[], object]], run: LatencyRun, rounds: int) -> dict[str, Any]:
    """Times and speed-ups over the dense way: [low, median, high]."""
    wall = {kind: run.speedup(kind) for kind in calls if kind != "dense"}
    found: dict[str, Any] = {
        "rounds": run.baseline.rounds,
        "ms": {kind: run[kind].median_ms for kind in calls},
        "iqr_ms": {kind: run[kind].iqr_ms for kind in calls},
        "wall_speedup": {kind: [value.low, value.value, value.high] for kind, value in wall.items()},
        "notes": list(run.notes),
    }
    found["speedup"] = found["wall_speedup"]
    if run.device == "cpu" and run.threads == 1:
        times = cpu_times(calls, rounds)
        ratios = {kind: sorted(a / b for a, b in zip(times["dense"], times[kind], strict=True)) for kind in wall}
        found["cpu_ms"] = {kind: sorted(values)[rounds // 2] for kind, values in times.items()}
        found["speedup"] = {kind: [r[0], r[rounds // 2], r[-1]] for kind, r in ratios.items()}
    return found


def fused(q: Tensor, k: Tensor, v: Tensor, log_size: Tensor | None) -> Tensor:
    """The attention of a block that does not merge."""
    return attend_fused(q, k, v, q.shape[-1] ** -0.5, log_size)


@torch.inference_mode()
def bench(
    name: str, threads: int, device: str, dtype: str, batch: int, massive: bool, seconds: float
) -> dict[str, Any]:
    """One size: difference of the outputs, speed-ups, memory."""
    heads, n, d = SIZES[name]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(batch, heads, n, d, generator=generator).to(device, getattr(torch, dtype)) for _ in range(3))
    masses = torch.randint(1, 9, (batch, n), generator=generator).float().to(device)
    log_size = masses.log() if massive else None
    torch.set_num_threads(threads)
    (out, entropy), (ours, sharpness) = dense(q, k, v, log_size), streamed(q, k, v, log_size)
    differences = {
        "output": float((out - ours).abs().max()),
        "saliency": float((saliency_of(entropy) - saliency_of(sharpness)).abs().max()),
    }
    del out, entropy, ours, sharpness
    calls = {kind.__name__: (lambda kind=kind: kind(q, k, v, log_size)) for kind in (dense, streamed, twice, fused)}
    run = interleave(calls, device=device, num_threads=threads, max_seconds=seconds, max_rounds=25)
    return {
        "size": name,
        "threads": threads,
        "dtype": dtype,
        "batch": batch,
        "masses": massive,
        **verdict(calls, run, 7),
        "peak_mib": {kind: peak_memory(call, device=device).peak_mib for kind, call in calls.items()},
        "largest_difference": differences,
    }


@torch.inference_mode()
def bench_forward(threads: int, device: str, dtype: str, batch: int, seconds: float) -> dict[str, Any]:
    """The attention of all blocks of one forward."""
    heads, n, d = SIZES[FORWARD]
    generator = torch.Generator().manual_seed(0)
    layers = []
    for i in range(DEPTH):
        q, k, v = (
            torch.randn(batch, heads, n, d, generator=generator).to(device, getattr(torch, dtype)) for _ in range(3)
        )
        masses = torch.randint(1, 9, (batch, n), generator=generator).float().to(device)
        layers.append(Layer(q, k, v, masses.log() if i else None, i < len(MERGED)))
        n -= MERGED[i] if i < len(MERGED) else 0
    torch.set_num_threads(threads)
    calls = {"dense": lambda: forward_dense(layers), "streamed": lambda: forward_streamed(layers)}
    run = interleave(calls, device=device, num_threads=threads, max_seconds=2 * seconds, max_rounds=15, warmup=1)
    return {
        "what": f"attention and saliency of {DEPTH} blocks, {FORWARD}, {MERGED} tokens merged",
        "threads": threads,
        "dtype": dtype,
        "batch": batch,
        **verdict(calls, run, 3),
    }


def forward_line(row: dict[str, Any]) -> str:
    """One measurement of a forward in words."""
    low, value, high = row["speedup"]["streamed"]
    ms = row.get("cpu_ms", row["ms"])
    where = f"{row['what']}, {row['threads']} threads, {row['dtype']}"
    times = f"{ms['dense']:.0f} -> {ms['streamed']:.0f} ms"
    return f"{'met' if value >= WANTED else 'MISSED':>6}  {where}: {value:.2f}x ({low:.2f}..{high:.2f}), {times}"


def line(row: dict[str, Any]) -> str:
    """One measurement in words."""
    low, value, high = row["speedup"]["streamed"]
    where = f"{row['size']}, {'with' if row['masses'] else 'no'} masses, {row['threads']} threads, {row['dtype']}"
    ms, peak = row.get("cpu_ms", row["ms"]), row["peak_mib"]
    return (
        f"{'met' if value >= WANTED else 'MISSED':>6}  {where}: {value:.2f}x ({low:.2f}..{high:.2f}), "
        f"{ms['dense']:.0f} -> {ms['streamed']:.0f} ms, {peak['dense']:.0f} -> {peak['streamed']:.0f} MiB, "
        f"output differs by {row['largest_difference']['output']:.0e}, "
        f"saliency by {row['largest_difference']['saliency']:.0e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="vid-TLDR's attention and saliency, dense against streamed.")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=["float32"])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", nargs="+", type=int, help="default on the CPU: one, and all")
    parser.add_argument("--seconds", type=float, default=20.0, help="per measurement")
    arguments = parser.parse_args()
    everything = torch.get_num_threads()
    threads = arguments.threads or (sorted({1, everything}) if arguments.device == "cpu" else [everything])
    rows, forwards = [], []
    for dtype in arguments.dtypes:
        for name in arguments.sizes:
            for count in threads:
                for massive in (False, True):
                    rows.append(
                        bench(name, count, arguments.device, dtype, arguments.batch, massive, arguments.seconds)
                    )
                    print(line(rows[-1]), flush=True)
        for count in threads:
            forwards.append(bench_forward(count, arguments.device, dtype, arguments.batch, arguments.seconds))
            print(forward_line(forwards[-1]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"vid_tldr_{torch.device(arguments.device).type}.json"
    content = {
        "environment": environment(arguments.device, ",".join(arguments.dtypes)),
        "target": {
            "text": f"streamed at least {WANTED:g}x as fast as two dense maps, at equal outputs",
            "blocks_met": sum(row["speedup"]["streamed"][1] >= WANTED for row in rows),
            "blocks": len(rows),
            "forwards_met": sum(row["speedup"]["streamed"][1] >= WANTED for row in forwards),
            "forwards": len(forwards),
        },
        "forwards": forwards,
        "blocks": rows,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
