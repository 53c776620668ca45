"""Run a sweep: compute what the store lacks, keep every finished cell at once, and write down what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokred.run.cell import plain
from tokred.run.engine import Engine, InParts
from tokred.run.progress import Progress, Silent
from tokred.run.spec_file import as_yaml, read_yaml
from tokred.run.store import CellStore, write_atomic
from tokred.run.store_lock import alone_in
from tokred.run.sweep_cost import Cost, estimate
from tokred.run.sweep_file import ORIGIN, draft_sweep
from tokred.run.sweep_plan import SweepPlan
from tokred.run.sweep_planner import plan_draft
from tokred.run.sweep_results import assemble_sweep
from tokred.run.sweep_spec import Settled, SweepSpec
from tokred.run.work import Done, Failed, Task

RESULTS = "sweep.json"

ABANDONED = 3600.0
"""Seconds after which nobody is still writing a file."""


class SweepStopped(RuntimeError):
    """A run that cannot go on, such as on a full disk; what was finished before is kept. One line."""


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to run: its file, the settings of its profile, and its cells."""

    spec: SweepSpec
    settled: Settled
    plan: SweepPlan
    device: str = "cpu"

    @property
    def folder(self) -> Path:
        """Where a run goes unless told otherwise: the same for the same file and profile."""
        name = f"{self.spec.name}-{self.settled.profile}" if self.settled.profile else self.spec.name
        return Path("results") / name


def open_sweep(
    file: str | Path | Mapping[str, Any],
    profile: str | None = None,
    sets: Sequence[str] = (),
    *,
    device: str = "cpu",
) -> Sweep:
    """A sweep from a file, or from what a file would hold, with every cell planned.

    Args:
        profile: by default "nano", or the file itself where it has no profiles; sets: see ``apply_sets``.
        device: where the cells will run.
    Raises:
        SpecError: everything that is wrong with the file and with its cells.
    """
    origin, content = (ORIGIN, as_yaml(file, ORIGIN)) if isinstance(file, Mapping) else (str(file), read_yaml(file))
    draft = draft_sweep(content, origin, sets, profile)
    return Sweep(*plan_draft(draft, profile, device=device), device)


def run_sweep(
    sweep: Sweep,
    out: Path,
    engine: Engine,
    *,
    parts: int = 1,
    fresh: bool = False,
    retry_failed: bool = False,
    command: str = "",
    progress: Progress | None = None,
    store: CellStore | None = None,
) -> dict[str, Any]:
    """Compute the cells that are missing in ``out`` and write ``sweep.json``.

    A cell that fails keeps its reason and never stops the others.

    Args:
        engine: computes the cells, closed by the caller; parts: of each cell, for one big data set on many workers.
        fresh: compute finished cells again; retry_failed: those that failed in an earlier run.
        command: that is written down; store: where cells are kept, by default in ``out``: sweeps with one store
            compute what they have in common once.
    Returns:
        See ``tokred.run.sweep_results``; ``complete`` is False after Ctrl-C, when the finished cells are kept.
    Raises:
        SweepStopped: nothing can be written.
    """
    say = progress if progress is not None else Silent()
    store = CellStore(out) if store is None else store
    interrupted = False
    try:
        with alone_in(store.folder, say):
            _clear(store)
            cost = estimate(sweep.plan, store, fresh=fresh, retry_failed=retry_failed)
            _tell(cost, out, say)
            if fresh:
                _forget_parts(store, cost.todo)
            _compute(sweep, cost, store, InParts(engine, parts, store) if parts > 1 else engine, say)
    except KeyboardInterrupt:
        interrupted = True
    except OSError as error:
        raise _stopped(sweep, store, out, error) from error
    results = assemble_sweep(
        sweep.spec,
        sweep.settled,
        sweep.plan,
        store,
        device=sweep.device,
        complete=not interrupted,
        command=command,
    )
    try:
        write_atomic(out / RESULTS, json.dumps(results, indent=1, allow_nan=False).encode())
    except OSError as error:
        raise _stopped(sweep, store, out, error) from error
    return results


def failed_cells(sweep: Sweep, store: CellStore) -> dict[str, str]:
    """Cells that failed, with the reason of each; an unreduced one that others need is among them."""
    found = {}
    for id_, planned in sweep.plan.wanted.items():
        failure = store.failure(id_)
        if failure is not None and planned.cell is not None and store.read(id_) is None:
            found[f"{planned.cell.reducer} ({id_})"] = str(failure.get("reason", "no reason was kept"))
    return found


def _compute(sweep: Sweep, cost: Cost, store: CellStore, engine: Engine, say: Progress) -> None:
    tasks, wanted = [], sweep.plan.wanted
    for id_ in cost.todo:
        planned = wanted[id_]
        assert planned.cell is not None
        assert planned.group is not None
        tasks.append(Task(id_, planned.cell, planned.group.weights, planned.group.data, planned.reducer))
    if not tasks:
        return
    with say.phase(f"computing {len(tasks)} cells", cost.clips) as advance:
        for outcome in engine.run(tasks, advance):
            _keep(store, outcome)


def _keep(store: CellStore, outcome: Done | Failed) -> None:
    id_ = outcome.task.id
    if isinstance(outcome, Done):
        store.write(id_, outcome.record, outcome.arrays)
        return
    # What an earlier run found under this name does not hold any more.
    store.forget(id_)
    store.write_failure(id_, {**plain(outcome.task.cell), "reason": outcome.reason, "traceback": outcome.traceback})


def _tell(cost: Cost, out: Path, say: Progress) -> None:
    if cost.kept:
        total = len(cost.kept) + len(cost.failed) + len(cost.todo)
        say.note(
            f"{len(cost.kept)} of {total} cells are kept from an earlier run in {out} (--fresh computes them again)"
        )
    if cost.failed:
        say.note(f"{len(cost.failed)} failed in an earlier run and are left (--retry-failed tries them again)")


def _clear(store: CellStore) -> None:
    """Remove files that a killed run was writing; young ones may belong to another run that is alive."""
    for path in store.folder.glob(".*.tmp"):
        try:
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
        except FileNotFoundError:
            continue  # the other run has finished it


def _forget_parts(store: CellStore, ids: Sequence[str]) -> None:
    for id_ in ids:
        for path in store.folder.glob(f"{id_}.*-*.json"):
            store.forget(path.name.removesuffix(".json"))


def _stopped(sweep: Sweep, store: CellStore, out: Path, error: OSError) -> SweepStopped:
    kept = len(estimate(sweep.plan, store).kept)
    return SweepStopped(
        f"stopped, nothing can be written to {out}: {error.strerror or error}; {kept} of {len(sweep.plan.wanted)} "
        "cells are kept, and the same command goes on from there"
    )
