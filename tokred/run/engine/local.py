"""Tasks in processes of this machine, one device each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from tokred.run.engine.base import Advance, Closing, EngineError, Outcome
from tokred.run.engine.pending import Pending
from tokred.run.engine.process import Worker
from tokred.run.work import Task, work

MOST_UNASKED = 4
"""Workers on a CPU unless told otherwise: each keeps a model and clips in memory."""


class LocalEngine(Closing):
    """Spawned processes that share the threads of this one, or this process itself where there is one worker.

    Workers stay, with the models and clips that they have in memory, until the engine is closed. They end with this
    process, however it ends.

    Args:
        workers: processes; None = one per GPU, or on a CPU one per thread, at most 4.
        device: "cpu", one GPU ("cuda:1") for all, or "cuda": the GPUs in turns.
    Raises:
        EngineError: no such GPU.
    """

    def __init__(self, workers: int | None = None, device: str = "cpu") -> None:
        gpus = torch.cuda.device_count() if device.startswith("cuda") else 0
        if device.startswith("cuda") and not gpus:
            raise EngineError(f"device = {device}: there is no GPU that torch can use")
        threads = torch.get_num_threads()
        default = (1 if ":" in device else gpus) if gpus else min(threads, MOST_UNASKED)
        self._count = default if workers is None else workers
        self._threads = max(1, threads // self._count)
        self._devices = [f"{device}:{i % gpus}" if device == "cuda" else device for i in range(self._count)]
        self._team: list[Worker] = []

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        return self._count

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [worker.pid for worker in self._team if worker.pid is not None]

    def __enter__(self) -> LocalEngine:
        return self

    def run(self, tasks: Sequence[Task], advance: Advance | None = None) -> Iterator[Outcome]:
        """See ``Engine``. A single worker is this process: nothing outlives its death."""
        if self._count == 1:
            for task in tasks:
                yield work(task, advance)
            return
        pending = Pending(tasks)
        try:
            self._assign(pending)
            while pending.open:
                for worker in Worker.ready([w for w in self._team if w.number is not None]):
                    outcome = self._hear(worker, pending, advance)
                    self._assign(pending)  # before the caller takes its time with the outcome
                    if outcome is not None:
                        yield outcome
        finally:
            for worker in [w for w in self._team if w.number is not None]:
                self._bury(worker)

    def close(self) -> None:
        """End all workers."""
        while self._team:
            self._bury(self._team[-1])

    def _assign(self, pending: Pending) -> None:
        """Give every idle worker a task, and start workers while there are more tasks."""
        while pending.waiting:
            worker = next((w for w in self._team if w.number is None), None)
            if worker is None:
                if len(self._team) == self._count:
                    return
                taken = [w.device for w in self._team]
                # Each device once per turn, also after one of the workers had to be replaced.
                device = min(self._devices, key=lambda name: taken.count(name) / self._devices.count(name))
                worker = Worker(self._threads, device)
                self._team.append(worker)
            number = pending.take(worker.key, {w.key for w in self._team if w is not worker and w.key is not None})
            assert number is not None
            if not worker.give(number, pending.tasks[number]):
                # It died while it had nothing to do: no task is to blame.
                pending.back(number)
                self._bury(worker)

    def _hear(self, worker: Worker, pending: Pending, advance: Advance | None) -> Outcome | None:
        """The outcome of a worker's task, if it has come."""
        number = worker.number
        assert number is not None
        try:
            for message in worker.messages():
                if not isinstance(message, int):
                    worker.number = None
                    pending.done(number)
                    return message
                worker.clips += message
                more = pending.counted(number, worker.clips)
                if more and advance is not None:
                    advance(more)
        except EOFError:
            reason = worker.why()
            self._bury(worker)
            return pending.died(number, reason)
        return None

    def _bury(self, worker: Worker) -> None:
        self._team.remove(worker)
        worker.end()
