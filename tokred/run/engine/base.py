"""What every engine offers, and how one is chosen by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol

from tokred.run.work import Done, Failed, Task

ENGINES = ("local", "ray")

Outcome = Done | Failed
Advance = Callable[[int], None]
"""Called with the number of clips done since the last call."""


class EngineError(ValueError):
    """An engine that cannot be had as it was asked for; one line."""


class Engine(Protocol):
    """Computes tasks, wherever it does so. The arrays are the same, bit for bit, for every engine and size."""

    @property
    def workers(self) -> int:
        """How many tasks it computes at a time, as far as it is known before it runs."""
        ...

    def run(self, tasks: Sequence[Task], advance: Advance | None = None) -> Iterator[Outcome]:
        """Exactly one outcome per task, in the order they finish.

        A task whose worker dies is tried again, at most twice; then it has failed. To stop in the middle, leave the
        loop and close the engine: what is being computed is lost, nothing else.

        Args:
            advance: called in the caller's thread; clips that are computed again are not counted again.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Closing:
    """An engine as a context manager that closes it."""

    def close(self) -> None:
        """End all workers."""
        raise AssertionError("every engine closes in its own way")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_engine(
    name: str = "local",
    workers: int | None = None,
    device: str = "cpu",
    address: str | None = None,
    num_gpus: float = 0.0,
) -> Engine:
    """An engine by name; its workers start with the first task.

    Args:
        name: "local" (processes of this machine) or "ray" (a Ray cluster).
        workers: tasks at a time; None = as many as there are devices (local: at most 4 on a CPU). 1 computes in this
            process (local).
        device: what the tasks' cells say; local workers spread over all GPUs for "cuda".
        address: of a running Ray cluster; None = ``RAY_ADDRESS``, or one on this machine for as long as it is needed.
        num_gpus: GPUs per task of a Ray cluster, may be a share of one; 1 unless given where ``device`` is a GPU.
    Raises:
        EngineError: an unknown name, a setting of another engine or out of range, or Ray is not installed.
    """
    if name not in ENGINES:
        close = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise EngineError(f"unknown engine {name!r}: {hint}allowed are {', '.join(ENGINES)}")
    if workers is not None and workers < 1:
        raise EngineError(f"workers = {workers} must be at least 1")
    if name == "ray":
        from tokred.run.engine.ray import RayEngine

        return RayEngine(workers, device, address, num_gpus)
    for what, given in (("address", address), ("num_gpus", num_gpus)):
        if given:
            raise EngineError(f"{what} = {given} belongs to the engine ray; the engine is local")
    from tokred.run.engine.local import LocalEngine

    return LocalEngine(workers, device)
