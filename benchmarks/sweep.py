"""What an engine costs per cell, and what a second worker brings.

    python benchmarks/sweep.py                      # in-process, two local workers, a Ray cluster of two workers
    python benchmarks/sweep.py --engines local --rounds 9

Every round runs the same cells on each engine, one engine after the other, with workers that already have model and
clips in memory; ratios are taken inside a round, because these machines are shared and absolute times drift. Cells of
one clip show the overhead, cells of many clips the gain. Writes benchmarks/results/sweep_cpu.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.engine import Engine, make_engine
from tokred.run.environment import environment
from tokred.run.work import Done, Task, _host, opened

RESULTS = Path(__file__).parent / "results"
BACKBONE = "videomae_vit_nano"
ONE = "in this process, 1 thread"


def grid(cells: int, clips: int) -> list[Task]:
    """Cells that differ in their settings alone."""
    plain = Cell(BACKBONE, "none", ClipSettings(clips=clips), batch=8)
    weights, data = _host(BACKBONE, None, None, "cpu", "float32")[2], opened(plain).digest()
    made = [replace(plain, reducer=f"sta:r={r % 12 + 1}") for r in range(cells)]
    return [Task(f"{number}", cell, weights, data) for number, cell in enumerate(made)]


def seconds(engine: Engine, tasks: list[Task], threads: int) -> float:
    """Wall time of a grid."""
    torch.set_num_threads(threads)
    began = time.perf_counter()
    found = list(engine.run(tasks))
    took = time.perf_counter() - began
    bad = [outcome for outcome in found if not isinstance(outcome, Done)]
    if bad or len(found) != len(tasks):
        raise RuntimeError(f"{len(found)} outcomes of {len(tasks)} tasks, failed: {bad[:1]}")
    return took


def spread(values: list[float]) -> dict[str, float]:
    """Median with the smallest and the largest value."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def compared(runs: dict[str, Callable[[list[Task]], float]], tasks: list[Task], rounds: int) -> dict[str, Any]:
    """Seconds per cell of every engine, and against one thread of this process in the same round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(tasks)  # models and clips come to memory
    for number in range(rounds):
        names = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in names:
            times[name].append(runs[name](tasks) / len(tasks))
    return {
        name: {
            "ms_per_cell": spread([1e3 * value for value in values]),
            "more_ms_than_in_process": spread([1e3 * (a - b) for a, b in zip(values, times[ONE])]),
            "faster_than_in_process": spread([b / a for a, b in zip(values, times[ONE])]),
        }
        for name, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="*", default=["local", "ray"], choices=["local", "ray"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", type=int, nargs=2, default=[24, 1], metavar=("CELLS", "CLIPS"))
    parser.add_argument("--large", type=int, nargs=2, default=[8, 32], metavar=("CELLS", "CLIPS"))
    args = parser.parse_args()
    load = [os.getloadavg()[0]]
    with ExitStack() as stack:
        torch.set_num_threads(2)
        here = stack.enter_context(make_engine(workers=1))
        runs = {ONE: lambda tasks: seconds(here, tasks, 1), "in this process, 2 threads": lambda t: seconds(here, t, 2)}
        for name in args.engines:
            engine = stack.enter_context(make_engine(name, workers=2))
            runs[f"{name}, 2 workers"] = lambda tasks, engine=engine: seconds(engine, tasks, 1)
        found = {}
        for kind, (cells, clips) in (("overhead", args.small), ("gain", args.large)):
            found[kind] = {"cells": cells, "clips": clips, "engines": compared(runs, grid(cells, clips), args.rounds)}
    load.append(os.getloadavg()[0])
    report = {"rounds": args.rounds, "load_average": load, "cores": os.cpu_count(), **found}
    report["environment"] = environment("cpu", "float32")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sweep_cpu.json").write_text(json.dumps(report, indent=1) + "\n")
    for kind, part in found.items():
        print(f"{kind}: {part['cells']} cells of {part['clips']} clips, load {load[0]:.0f} on {os.cpu_count()} cores")
        for name, values in part["engines"].items():
            cost, faster = values["ms_per_cell"]["median"], values["faster_than_in_process"]["median"]
            print(f"  {name:28} {cost:9.1f} ms per cell  {faster:5.2f}x")


if __name__ == "__main__":
    main()
