"""Peak memory that one call needs on top of what was there before it."""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of one call.

    Args:
        peak_bytes: highest sum of live tensors during the call minus what was live before it (weights and inputs
            made earlier are not in it), bytes.
        resident_bytes: live on the device before the call, bytes; None on the CPU, where torch does not know it.
        method: what was measured.
    """

    peak_bytes: int
    resident_bytes: int | None
    method: str

    @property
    def peak_mib(self) -> float:
        """The peak in 2**20 bytes."""
        return self.peak_bytes / 2**20


def peak_memory(call: Callable[[], object], *, device: str | torch.device = "cpu") -> PeakMemory:
    """Run a call once for warm-up and once measured.

    On CUDA: the caching allocator's ``max_memory_allocated``. On the CPU: every allocation and release that torch's
    CPU allocator reports to the profiler, added up. That is exact and repeatable, unlike the resident set of the
    process, but blind to scratch space that oneDNN or MKL take for themselves.

    Args:
        call: what to measure; its result is held until the end.
        device: where it computes: "cpu" or "cuda".
    Raises:
        ValueError: another kind of device.
    """
    place = torch.device(device)
    if place.type == "cuda":
        return _cuda(call, place)
    if place.type == "cpu":
        return _cpu(call)
    raise ValueError(f"peak memory cannot be measured on {place.type!r}; allowed: cpu, cuda")


def highest(changes: Iterable[int]) -> int:
    """The highest running sum of allocations (positive) and releases (negative), at least 0."""
    live = peak = 0
    for change in changes:
        live += change
        peak = max(peak, live)
    return peak


def _cuda(call: Callable[[], object], device: torch.device) -> PeakMemory:
    call()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    result = call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    del result
    return PeakMemory(peak - before, before, "torch.cuda.max_memory_allocated")


def _cpu(call: Callable[[], object]) -> PeakMemory:
    from torch.profiler import ProfilerActivity, profile

    call()
    with _quiet_kineto(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    # The exported trace is the public form of these events; the classes behind it change between versions.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace: dict[str, Any] = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    events = [e for e in trace["traceEvents"] if e.get("name") == "[memory]" and e["args"]["Device Type"] == 0]
    events.sort(key=lambda event: event["ts"])
    changes = [int(event["args"]["Bytes"]) for event in events]
    return PeakMemory(highest(changes), None, "allocations of torch's CPU allocator (profiler)")


@contextmanager
def _quiet_kineto() -> Iterator[None]:
    """The profiler writes its start, its stop and a missing GPU to stderr, in the middle of the user's table."""
    name = "KINETO_LOG_LEVEL"
    given = os.environ.get(name)
    os.environ.setdefault(name, "99")
    try:
        with warnings.catch_warnings():
            # It speaks of several cycles; there is one.
            warnings.filterwarnings("ignore", message=".*Profiler clears events", category=UserWarning)
            yield
    finally:
        if given is None:
            del os.environ[name]
