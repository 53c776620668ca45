"""Wall-clock time of several callables, interleaved in one run.

A machine's speed drifts by more than the gains that are looked for, so the callables take turns (A B C A B C ...) and
every speed-up is the median over rounds of the ratio inside a round. ``torch.utils.benchmark`` does the timing: it
sets the thread count, switches the garbage collector off and waits for the accelerator.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tokred.measure.statistics import Interval, bootstrap
from tokred.measure.threads import torch_threads

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer

#: A block of calls lasts at least this long, so that reading the clock costs nothing; seconds.
MIN_BLOCK_S = 0.02
#: With fewer rounds than this the result carries a note.
FEW_ROUNDS = 5


@dataclass(frozen=True)
class Timing:
    """Times of one callable in one run.

    Args:
        name: of the callable.
        run: id of the run; only timings of one run can be compared.
        times_ms: median time of one call in each round, ms.
    """

    name: str
    run: str
    times_ms: tuple[float, ...]

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return len(self.times_ms)

    @property
    def median_ms(self) -> float:
        """Median over rounds, ms per call."""
        return float(np.median(self.times_ms))

    @property
    def iqr_ms(self) -> float:
        """Distance between the quartiles over rounds, ms."""
        low, high = np.percentile(self.times_ms, [25, 75])
        return float(high - low)

    def per_second(self, items_per_call: int = 1) -> float:
        """Items (e.g. clips) per second when one call handles ``items_per_call``."""
        return 1000.0 * items_per_call / self.median_ms


@dataclass(frozen=True)
class LatencyRun:
    """One interleaved run.

    Args:
        timings: one per callable, in the given order; the first is the baseline of every speed-up.
        device: "cpu", "cuda" ...; threads: intra-op threads; clock: how time was read.
        seconds: wall time of the whole run, warm-up included.
        notes: what limits the result, e.g. too few rounds for the time allowed.
    """

    timings: tuple[Timing, ...]
    device: str
    threads: int
    clock: str
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def baseline(self) -> Timing:
        """The first callable."""
        return self.timings[0]

    def __getitem__(self, name: str) -> Timing:
        for timing in self.timings:
            if timing.name == name:
                return timing
        raise ValueError(f"{name!r} was not timed in this run; timed: {', '.join(t.name for t in self.timings)}")

    def speedup(self, name: str) -> Interval:
        """Speed-up of one callable against the baseline of this run."""
        return speedup(self[name], self.baseline)


def speedup(timing: Timing, baseline: Timing) -> Interval:
    """Median over rounds of baseline time / time, with a 95 % bootstrap interval over rounds.

    Raises:
        ValueError: the two were not measured in one run.
    """
    if timing.run != baseline.run:
        raise ValueError(
            f"no speed-up of {timing.name!r} over {baseline.name!r}: they were measured in different runs, and the "
            "machine's drift between runs is not a speed-up; time both in one run"
        )
    ratios = np.asarray(baseline.times_ms) / np.asarray(timing.times_ms)
    return bootstrap(ratios, np.median)


def interleave(
    callables: Mapping[str, Callable[[], object]],
    *,
    device: str | torch.device = "cpu",
    num_threads: int | None = None,
    max_seconds: float = 20.0,
    max_rounds: int = 50,
    warmup: int = 2,
) -> LatencyRun:
    """Time callables in turns.

    Args:
        callables: name -> what to time; the first is the baseline.
        device: where they compute; the clock waits for it.
        num_threads: intra-op threads during the run; default: as now. Restored afterwards.
        max_seconds: no new round starts that would end later than this; one round always runs.
        max_rounds: at most so many rounds.
        warmup: calls of each before the first round.
    Returns:
        The timings; each turn is a block of calls behind one discarded call, which refills the caches that the
        others emptied.
    Raises:
        ValueError: nothing to time, or settings out of range.
        RuntimeError: a callable failed; its error is the cause.
    """
    place = torch.device(device)
    threads = torch.get_num_threads() if num_threads is None else num_threads
    _check(callables, threads, max_seconds, max_rounds, warmup)
    began = time.perf_counter()
    run = uuid.uuid4().hex
    timers = {name: _timer(call, place, threads) for name, call in callables.items()}
    times: dict[str, list[float]] = {name: [] for name in callables}
    rounds, longest = 0, 0.0
    with torch_threads(threads):
        for name, call in callables.items():
            with _named(name):
                for _ in range(warmup):
                    call()
        while rounds == 0 or (rounds < max_rounds and time.perf_counter() - began + longest <= max_seconds):
            round_began = time.perf_counter()
            for name, timer in timers.items():
                with _named(name):
                    times[name].append(1000.0 * timer.blocked_autorange(min_run_time=MIN_BLOCK_S).median)
            rounds += 1
            longest = max(longest, time.perf_counter() - round_began)
    notes = []
    if rounds < FEW_ROUNDS:
        allowed = f"{max_seconds:g} s and {max_rounds} rounds were allowed"
        notes.append(f"only {rounds} of at least {FEW_ROUNDS} rounds ({allowed}): the intervals are not reliable")
    return LatencyRun(
        timings=tuple(Timing(name, run, tuple(values)) for name, values in times.items()),
        device=str(place),
        threads=threads,
        clock="wall clock" if place.type == "cpu" else f"wall clock, {place.type} synchronised at both ends of a block",
        seconds=time.perf_counter() - began,
        notes=tuple(notes),
    )


def _timer(call: Callable[[], object], device: torch.device, threads: int) -> Timer:
    # Slow to import: it looks for compilers.
    from torch.utils.benchmark import Timer

    return Timer("call()", globals={"call": call}, num_threads=threads, timer=_clock(device))


def _clock(device: torch.device) -> Callable[[], float]:
    """A clock that waits for the device: work that is queued there is not done."""
    if device.type == "cpu":
        return time.perf_counter

    def synchronised() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        else:
            getattr(torch, device.type).synchronize()
        return time.perf_counter()

    return synchronised


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise RuntimeError(f"timing {name!r} failed: {type(error).__name__}: {error}") from error


def _check(
    callables: Mapping[str, Callable[[], object]], threads: int, max_seconds: float, max_rounds: int, warmup: int
) -> None:
    if not callables:
        raise ValueError("nothing to time: give at least one callable")
    if threads < 1:
        raise ValueError(f"num_threads = {threads}; allowed: 1 or more")
    if max_rounds < 1 or warmup < 0:
        raise ValueError(f"max_rounds = {max_rounds}, warmup = {warmup}; allowed: at least 1 and at least 0")
    if not max_seconds > 0:
        raise ValueError(f"max_seconds = {max_seconds}; allowed: more than 0")
