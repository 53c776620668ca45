from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby

import pytest
import torch

from tokred.measure import latency
from tokred.measure.latency import LatencyRun, Timing, interleave, speedup


def sleeper(log: list[str], name: str) -> Callable[[], None]:
    def call() -> None:
        log.append(name)
        time.sleep(0.005)

    return call


def run_of(**times: tuple[float, ...]) -> LatencyRun:
    return LatencyRun(tuple(Timing(n, "one", t) for n, t in times.items()), "cpu", 1, "wall clock", 1.0)


def test_callables_take_turns() -> None:
    log: list[str] = []
    run = interleave({n: sleeper(log, n) for n in "abc"}, max_rounds=3, max_seconds=60, warmup=1)
    turns = "".join(name for name, _ in groupby(log))
    assert turns == "abc" * 4
    assert [t.rounds for t in run.timings] == [3, 3, 3]


def test_every_turn_starts_with_a_call_that_is_not_timed() -> None:
    log: list[str] = []
    interleave({n: sleeper(log, n) for n in "ab"}, max_rounds=2, max_seconds=60, warmup=0)
    assert min(len(list(group)) for _, group in groupby(log)) >= 2


def test_speedup_is_the_median_of_the_ratios_inside_each_round() -> None:
    # The machine slows down threefold in the last round: medians of the times would mix rounds.
    run = run_of(base=(10.0, 20.0, 90.0), fast=(5.0, 10.0, 30.0))
    assert run.speedup("fast").value == 2.0
    assert run.speedup("base").value == run.speedup("base").low == 1.0


def test_the_interval_of_a_speedup_lies_within_its_rounds() -> None:
    interval = run_of(base=(10.0,) * 6, fast=(5.0, 4.0, 10.0, 5.0, 2.0, 5.0)).speedup("fast")
    assert 1.0 <= interval.low <= interval.value == 2.0 <= interval.high <= 5.0
    assert interval.n == 6


def test_a_speedup_without_the_baseline_of_the_same_run_is_refused() -> None:
    with pytest.raises(ValueError, match="measured in different runs"):
        speedup(Timing("fast", "one", (1.0,)), Timing("base", "two", (2.0,)))


def test_two_runs_have_two_ids() -> None:
    first, second = (interleave({"a": lambda: None}, max_rounds=1) for _ in range(2))
    assert first.baseline.run != second.baseline.run


def test_a_name_that_was_not_timed_is_refused() -> None:
    with pytest.raises(ValueError, match="'slow' was not timed in this run; timed: base, fast"):
        run_of(base=(1.0,), fast=(1.0,)).speedup("slow")


def test_median_quartiles_and_rate() -> None:
    timing = Timing("a", "one", (10.0, 20.0, 30.0, 40.0, 50.0))
    assert (timing.median_ms, timing.iqr_ms, timing.rounds) == (30.0, 20.0, 5)
    assert timing.per_second(6) == pytest.approx(200.0)


def test_the_thread_count_holds_during_the_run_and_is_restored() -> None:
    before = torch.get_num_threads()
    wanted = before + 1
    seen: set[int] = set()
    run = interleave({"a": lambda: seen.add(torch.get_num_threads())}, num_threads=wanted, max_rounds=1)
    assert (seen, run.threads, torch.get_num_threads()) == ({wanted}, wanted, before)


def test_the_thread_count_is_restored_after_a_failure() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        raise MemoryError("too large")

    with pytest.raises(RuntimeError, match="timing 'big' failed: MemoryError: too large"):
        interleave({"big": fail}, num_threads=before + 1)
    assert torch.get_num_threads() == before


def test_the_time_allowed_stops_the_rounds_and_few_rounds_are_noted() -> None:
    run = interleave({"a": lambda: time.sleep(0.02)}, max_seconds=0.001, warmup=0)
    assert run.baseline.rounds == 1
    (note,) = run.notes
    assert note.startswith("only 1 of at least 5 rounds (0.001 s and 50 rounds were allowed)")


def test_enough_rounds_carry_no_note() -> None:
    assert interleave({"a": lambda: None}, max_seconds=60, max_rounds=5).notes == ()


def test_the_clock_waits_for_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    clock = latency._clock(torch.device("cuda", 0))
    assert clock() <= clock()
    assert waited == [torch.device("cuda", 0)] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"callables": {}}, "nothing to time"),
        ({"num_threads": 0}, "num_threads = 0; allowed: 1 or more"),
        ({"max_rounds": 0}, "max_rounds = 0"),
        ({"warmup": -1}, "warmup = -1"),
        ({"max_seconds": 0.0}, "max_seconds = 0.0; allowed: more than 0"),
        ({"max_seconds": float("nan")}, "max_seconds = nan"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interleave(**{"callables": {"a": lambda: None}, **settings})  # type: ignore[arg-type]
