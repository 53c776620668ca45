"""A worker process of this machine, from both ends of its pipe."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from threading import Thread

import torch

from tokred.run.engine.pending import Key, key_of
from tokred.run.work import Done, Failed, Task, work

BROKEN = (EOFError, OSError)
"""How the other end of a pipe shows that it is gone."""


class Worker:
    """The parent's end: one process, one task at a time.

    Args:
        threads: of torch; device: where cells of that kind of device run.
    Attributes:
        number: of its task, None = idle; key: what it has in memory; clips: done in its task.
    """

    def __init__(self, threads: int, device: str) -> None:
        # Spawned: forking a process that runs threads, or has used a GPU, is not safe.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, threads, device), daemon=True)
        with _no_interrupts():
            self._process.start()
        theirs.close()
        self.device = device
        self.number: int | None = None
        self.key: Key | None = None
        self.clips = 0

    @property
    def pid(self) -> int | None:
        """Number of the process."""
        return self._process.pid

    def give(self, number: int, task: Task) -> bool:
        """Hand a task over; False where the process is gone."""
        try:
            self._pipe.send(task)
        except BROKEN:
            return False
        self.number, self.key, self.clips = number, key_of(task), 0
        return True

    def messages(self) -> Iterator[int | Done | Failed]:
        """What it has said: clips done, or the outcome of its task.

        Raises:
            EOFError: it is gone, and has nothing more to say.
        """
        while self._pipe.poll():
            try:
                yield self._pipe.recv()
            except BROKEN as error:
                raise EOFError from error
        if not self._process.is_alive() and not self._pipe.poll():
            raise EOFError

    def why(self) -> str:
        """Why the process is gone, in words."""
        self._process.join(1.0)
        status = self._process.exitcode
        if status is None or status >= 0:
            return f"it ended with status {status}"
        name = signal.Signals(-status).name
        return f"killed by {name}" + (", as by a system that is out of memory" if name == "SIGKILL" else "")

    def end(self) -> None:
        """End the process at once: it keeps nothing that somebody could miss."""
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process.close()

    @staticmethod
    def ready(workers: list[Worker]) -> list[Worker]:
        """Wait until some of them have something to say, or are gone."""
        ends = wait([end for worker in workers for end in (worker._pipe, worker._process.sentinel)])
        return [worker for worker in workers if worker._pipe in ends or worker._process.sentinel in ends]


def serve(pipe: Connection, threads: int, device: str) -> None:
    """The process' end: compute what comes until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)

    def tell(message: int | Done | Failed) -> None:
        try:
            pipe.send(message)
        except OSError:
            os._exit(1)  # nobody listens any more

    while True:
        try:
            task: Task = pipe.recv()
        except BROKEN:
            return
        outcome = replace(work(on(task, device), tell), task=task)
        try:
            tell(outcome)
        except Exception as error:  # a measure of a user may find anything
            tell(Failed(task, f"its result cannot be handed over: {type(error).__name__}: {error}"))


def on(task: Task, device: str) -> Task:
    """The task on one of several devices of its kind, as "cuda:1" for "cuda"."""
    if task.cell.device != device.partition(":")[0]:
        return task
    return replace(task, cell=replace(task.cell, device=device))


def _end_with_parent() -> None:
    """However the parent ends, also when it is killed, this process ends too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """A process that is started inside never sees Ctrl-C, not even while it imports: its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
