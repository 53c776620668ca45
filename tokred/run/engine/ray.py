"""Tasks on a Ray cluster: actors compute, this process decides who computes what and takes what they found."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tokred.run.engine.base import Advance, Closing, EngineError, Outcome
from tokred.run.engine.pending import Key, Pending, key_of
from tokred.run.environment import code_digest
from tokred.run.work import Done, Failed, Task, work

CPUS = 1.0
"""Processor cores per worker: a cell runs its batches on as many threads."""

LOOK_SECONDS = 1.0
"""How often the cluster is asked for nodes that came or went."""

PATIENCE_SECONDS = 300.0
"""With no node left that could compute a task, others may come for so long."""


class RayWorker:
    """What runs on the cluster: a process with a device that keeps its models and clips between tasks.

    Args:
        code: digest of the caller's tokred; folder: where relative paths begin.
    """

    def __init__(self, code: str, folder: str) -> None:
        torch.set_num_threads(max(1, int(CPUS)))
        if os.path.isdir(folder):
            os.chdir(folder)
        self._code = code

    def ready(self) -> bool:
        """Answers as soon as the process runs."""
        return True

    def work(self, task: Task) -> Done | Failed:
        """Compute a task."""
        if code_digest() != self._code:
            other = f"{platform.node()} has another version of tokred than this machine"
            return Failed(task, f"{other}: install the same, and change no file while a run goes on")
        return work(task)


@dataclass(eq=False)
class _Actor:
    """A worker as this process sees it: ``ref`` is what it was asked last, ``number`` its task (None = no task)."""

    handle: Any
    ref: Any
    number: int | None = None
    key: Key | None = None
    up: bool = False


class RayEngine(Closing):
    """Actors on a cluster, one task each at a time, so that results never pile up in the object store.

    Actors stay, with what they have in memory, until the engine is closed. When nodes join, more are started; when a
    node dies, those that are left take its tasks. Ray retries nothing on its own account, so that a task is counted,
    and found, once.

    Args:
        workers: actors at most; None = as many as the cluster has room for.
        device: as the cells say; address: of a running cluster, None = ``RAY_ADDRESS``, or a new one on this machine.
        num_gpus: per actor, a share of one is allowed; 1 unless given where ``device`` is a GPU.
        patience: seconds to wait for a node when none is left.
    Raises:
        EngineError: Ray is missing, the cluster does not answer, or none of its nodes can run a task.
    """

    def __init__(
        self,
        workers: int | None = None,
        device: str = "cpu",
        address: str | None = None,
        num_gpus: float = 0.0,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        gpus = num_gpus or (1.0 if device.startswith("cuda") else 0.0)
        if num_gpus < 0 or (num_gpus > 0 and not device.startswith("cuda")):
            raise EngineError(f"num_gpus = {num_gpus:g} with device = {device}: it is for cells on a GPU, and above 0")
        self._ray = _quiet_ray()
        self._limit, self._gpus, self._patience = workers, gpus, patience
        self._actors: list[_Actor] = []
        self._own = not self._ray.is_initialized()
        if self._own:
            _connect(self._ray, address or os.environ.get("RAY_ADDRESS"), workers)
        if not self._room():
            self.close()
            need = f"{CPUS:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
            raise EngineError(f"no node of the Ray cluster has the {need} that a task needs")
        remote = self._ray.remote(num_cpus=CPUS, num_gpus=gpus, max_restarts=0, max_task_retries=0)(RayWorker)
        self._new = lambda: remote.remote(code_digest(), os.getcwd())

    @property
    def workers(self) -> int:
        """How many tasks the cluster has room for now."""
        return self._room()

    def __enter__(self) -> RayEngine:
        return self

    def run(self, tasks: Sequence[Task], advance: Advance | None = None) -> Iterator[Outcome]:
        """See ``Engine``. Progress comes with finished tasks."""
        pending = Pending(tasks)
        alone: float | None = None  # since when there is no node
        looked = 0.0
        try:
            while pending.open:
                if time.monotonic() - looked > LOOK_SECONDS:
                    room, looked = self._room(), time.monotonic()
                    alone = None if room or self._busy else alone or looked
                    if alone is not None and looked - alone > self._patience:
                        yield from self._give_up(pending)
                        return
                    self._grow(min(room, pending.open))
                self._assign(pending)
                for outcome in self._hear(pending):
                    if isinstance(outcome, Done) and advance is not None:
                        advance(len(outcome.arrays.get("items", ())))
                    yield outcome
        finally:
            for actor in self._busy:
                self._bury(actor)

    def close(self) -> None:
        """End the actors, and the cluster if it was started for this engine."""
        while self._actors:
            self._bury(self._actors[-1])
        if self._own:
            self._ray.shutdown()

    @property
    def _busy(self) -> list[_Actor]:
        return [actor for actor in self._actors if actor.number is not None]

    def _room(self) -> int:
        """Actors that the living nodes can hold."""
        room = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                fit = has.get("CPU", 0.0) / CPUS
                room += int(min(fit, has.get("GPU", 0.0) / self._gpus) if self._gpus else fit)
        return room if self._limit is None else min(room, self._limit)

    def _grow(self, room: int) -> None:
        while len(self._actors) < room:
            handle = self._new()
            self._actors.append(_Actor(handle, handle.ready.remote()))

    def _assign(self, pending: Pending) -> None:
        """A task for every actor that runs and has none; an actor that waits for its node gets none."""
        for actor in self._actors:
            if actor.up and actor.number is None:
                held = {other.key for other in self._actors if other is not actor and other.key is not None}
                number = pending.take(actor.key, held)
                if number is None:
                    return
                actor.number, actor.key = number, key_of(pending.tasks[number])
                actor.ref = actor.handle.work.remote(pending.tasks[number])

    def _hear(self, pending: Pending) -> Iterator[Outcome]:
        """Wait a while, and take what has come."""
        asked = {actor.ref: actor for actor in self._actors if actor.ref is not None}
        if not asked:
            time.sleep(LOOK_SECONDS)
            return
        ready, _ = self._ray.wait(list(asked), timeout=LOOK_SECONDS)
        for ref in ready:
            actor = asked[ref]
            number, actor.number, actor.ref = actor.number, None, None
            found, reason = self._get(ref)
            if reason:
                self._bury(actor)
            actor.up = not reason
            if number is None:
                continue
            if found is None:
                outcome = pending.died(number, reason)
                if outcome is not None:
                    yield outcome
                continue
            pending.done(number)
            self._assign(pending)  # before the caller takes its time with the outcome
            yield found

    def _get(self, ref: Any) -> tuple[Outcome | None, str]:
        """What an actor found, and why it is gone."""
        try:
            found = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return None, " ".join(str(error).split())[:300]
        if isinstance(found, Done):
            # Ray's arrays lie in its store, which keeps them as long as anybody looks at them.
            found = replace(found, arrays={name: np.array(values) for name, values in found.arrays.items()})
        return found if isinstance(found, (Done, Failed)) else None, ""

    def _give_up(self, pending: Pending) -> Iterator[Failed]:
        while (number := pending.take(None)) is not None:
            pending.done(number)
            yield Failed(pending.tasks[number], f"the Ray cluster had no node for it for {self._patience:g} s")

    def _bury(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        self._ray.kill(actor.handle, no_restart=True)


def _quiet_ray() -> Any:
    """Ray, which then neither reports to its makers nor talks on the terminal.

    Raises:
        EngineError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns of its own change of default
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EngineError(f"the engine ray needs Ray: pip install 'tokred[ray]' ({error})") from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"include_dashboard": False} if address is None else {}
    size = {"num_cpus": workers} if address is None and workers is not None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **quiet, **size)
    except Exception as error:  # Ray raises bare ones too, as when a node takes more than half a minute to start
        where = "cannot be started here" if address is None else f"at {address} does not answer"
        reason = " ".join(str(error).split())[:300]
        raise EngineError(f"the Ray cluster {where}: {reason}") from error
