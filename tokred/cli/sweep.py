"""``tokred sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokred.cli.options import DTYPES, Device, Json, number, one_of, print_json, whole

if TYPE_CHECKING:
    from tokred.run.spec_file import SpecError
    from tokred.run.sweep import Sweep
    from tokred.run.sweep_cost import Cost
    from tokred.run.sweep_plan import PlannedCell

ENGINES = ("local", "ray")
AS_WRITTEN = "as written"


def command(
    file: Annotated[Path, typer.Argument(help="A sweep, e.g. experiments/sta_order.yaml.")],
    profile: Annotated[
        str | None, typer.Option("--profile", help="A size that the file has; default nano.", show_default=False)
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="KEY=VALUE, e.g. axes.order=[FBF,BFB], base.clips=50, seeds=[0,1]; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cells and what they cost; compute none.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default results/NAME-PROFILE.")] = None,
    engine: Annotated[
        str, typer.Option("--engine", callback=one_of(*ENGINES), help="local: processes here; ray: a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None, typer.Option("--workers", parser=whole(1), help="Cells at a time; 1 = in this process.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Of a running Ray cluster; default: one on this machine.")
    ] = None,
    num_gpus: Annotated[
        float, typer.Option("--num-gpus", parser=number(0), help="GPUs per cell on a Ray cluster.")
    ] = 0.0,
    parts: Annotated[
        int, typer.Option("--parts", parser=whole(1), help="Divide each cell's clips among so many workers.")
    ] = 1,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try cells again that failed.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute finished cells again.")] = False,
    device: Device = "cpu",
    dtype: Annotated[
        str, typer.Option("--dtype", callback=one_of(AS_WRITTEN, *DTYPES), help=f"One of {', '.join(DTYPES)}.")
    ] = AS_WRITTEN,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    parquet: Annotated[
        bool, typer.Option("--parquet", help="Write results.parquet too; needs the extra tokred[parquet].")
    ] = False,
    json: Json = False,
) -> int:
    """A grid of settings from a file: table, results file and report; a stopped run goes on where it was."""
    import shlex
    import sys

    from rich.console import Console

    from tokred.cli.progress import RichProgress
    from tokred.report import print_run, write_run
    from tokred.report.frames import sweep_frame
    from tokred.run.engine import make_engine
    from tokred.run.spec_file import SpecError
    from tokred.run.store import CellStore
    from tokred.run.sweep import SweepStopped, failed_cells, open_sweep, run_sweep
    from tokred.run.sweep_cost import estimate

    if parquet:
        _need_pyarrow()
    changes = [*(sets or []), *([] if dtype == AS_WRITTEN else [f"base.dtype={dtype}"])]
    try:
        sweep = open_sweep(file, profile, changes, device=device)
    except SpecError as error:
        return _refuse(error)
    folder = out if out is not None else sweep.folder
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file; allowed is a folder", param_hint="--out")
    store = CellStore(folder)
    if dry_run:
        cost = estimate(sweep.plan, store, fresh=fresh, retry_failed=retry_failed)
        if json:
            print_json(_plain(sweep, cost))
        else:
            print("\n".join(_lines(sweep, cost, workers or 1)))
        return 0
    progress = RichProgress(Console(stderr=True))
    with make_engine(engine, workers, device, address, num_gpus) as team:
        try:
            results = run_sweep(
                sweep,
                folder,
                team,
                parts=parts,
                fresh=fresh,
                retry_failed=retry_failed,
                command=shlex.join(["tokred", *sys.argv[1:]]),
                progress=progress,
            )
            write_run(results, folder)
            if parquet:
                _write_parquet(results, folder)
        except OSError as error:
            print(f"tokred: nothing can be written to {folder}: {error.strerror or error}", file=sys.stderr)
            return 1
        except SweepStopped as error:
            print(f"tokred: {error}", file=sys.stderr)
            return 1
    if json:
        print_json(results)
    elif csv:
        print(sweep_frame(results).to_csv(index=False, lineterminator="\n"), end="")
    else:
        print_run(results)
        print(f"report: {folder / 'report.html'}")
    failed = failed_cells(sweep, store)
    missing = [id_ for id_ in sweep.plan.wanted if store.read(id_) is None]
    if len(missing) > len(failed):
        total = len(sweep.plan.wanted)
        progress.note(
            f"stopped: {total - len(missing)} of {total} cells are kept in {folder}; "
            "the same command goes on from there"
        )
    for name, reason in failed.items():
        progress.note(f"failed: {name}: {reason}")
    return 1 if missing else 0


def _refuse(error: SpecError) -> int:
    """Everything that is wrong, one line each."""
    import sys

    for problem in error.problems:
        print(f"tokred: {error.origin}: {' '.join(problem.split())}", file=sys.stderr)
    return 2


def _need_pyarrow() -> None:
    """Before hours of computing, not after.

    Raises:
        BadParameter: it is not installed.
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise typer.BadParameter("pyarrow is not installed: pip install tokred[parquet]", param_hint="--parquet")


def _write_parquet(results: dict[str, Any], folder: Path) -> None:
    from io import BytesIO

    from tokred.report.frames import sweep_frame
    from tokred.run.store import write_atomic

    buffer = BytesIO()
    frame = sweep_frame(results)
    # A column of an axis may hold words and numbers; Parquet wants one kind.
    mixed = [name for name in frame.columns if frame[name].map(type).nunique() > 1 and frame[name].dtype == object]
    frame[mixed] = frame[mixed].map(lambda value: None if value is None else str(value))
    frame.to_parquet(buffer, index=False)
    write_atomic(folder / "results.parquet", buffer.getvalue())


def _lines(sweep: Sweep, cost: Cost, workers: int) -> list[str]:
    """The cells of a sweep and what is left to do, for people."""
    rows = [_row(planned, _state(planned, cost)) for planned in (*sweep.plan.baselines, *sweep.plan.cells)]
    head = ("cell", "state", "GMAC", "share", "full GMAC", "reducer", "point")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    table = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    notes = [f"note: {note}" for note in sweep.plan.notes]
    kinds = [(len(cost.kept), "kept"), (len(cost.failed), "failed before"), (len(cost.todo), "to compute")]
    counted = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    work = f"{cost.clips} clips, {'at most ' if cost.at_most else ''}{cost.gmac / 1e3:.3g} TMAC"
    total = len(sweep.plan.wanted)
    needs = [f"needs: {' '.join(sweep.settled.needs.split())}"] if sweep.settled.needs else []
    return [*table, *notes, *needs, f"{total} cells: {counted}; {work}; {_duration(cost, workers)}"]


def _row(planned: PlannedCell, state: str) -> tuple[str, ...]:
    if planned.cell is None:
        return ("-", f"left out: {planned.point.excluded}", "", "", "", "", _point(planned))
    full = planned.full
    measure = "" if planned.cell.measure == "predict" else f" [{planned.cell.measure}]"
    return (
        planned.id or "",
        state,
        "?" if planned.report is None else f"{planned.report.gmac:.4g}",
        "?" if planned.share is None else f"{planned.share:.1%}",
        "" if full is None else "?" if full.gmac is None else f"{full.gmac:.2f}",
        planned.cell.reducer + measure,
        _point(planned),
    )


def _point(planned: PlannedCell) -> str:
    return " ".join(f"{key}={value}" for key, value in planned.point.values.items()) or "shared unreduced model"


def _state(planned: PlannedCell, cost: Cost) -> str:
    if planned.id in cost.todo:
        return "to compute"
    return "kept" if planned.id in cost.kept else "failed"


def _duration(cost: Cost, workers: int) -> str:
    if not cost.todo:
        return "nothing is left to do"
    if cost.seconds is None:
        return "how long it takes is not known before a cell is finished"
    minutes = cost.seconds / workers / 60
    several = f" with {workers} workers" if workers > 1 else ""
    return f"about {minutes:.1f} min{several}, as fast as the cells that are finished"


def _plain(sweep: Sweep, cost: Cost) -> dict[str, Any]:
    """The same for programs."""
    cells = []
    for planned in (*sweep.plan.baselines, *sweep.plan.cells):
        full = planned.full
        cells.append(
            {
                "cell": planned.id,
                "state": "excluded" if planned.cell is None else _state(planned, cost),
                "reason": planned.point.excluded,
                "point": planned.point.values,
                "reducer": None if planned.cell is None else planned.cell.reducer,
                "measure": None if planned.cell is None else planned.cell.measure,
                "gmac": None if planned.report is None else planned.report.gmac,
                "gmac_share": planned.share,
                "full_gmac": None if full is None else full.gmac,
                "full_reason": None if full is None else full.reason,
                "notes": list(planned.notes),
            }
        )
    return {
        "name": sweep.spec.name,
        "profile": sweep.settled.profile,
        "cells": cells,
        "kept": len(cost.kept),
        "failed": len(cost.failed),
        "todo": len(cost.todo),
        "clips": cost.clips,
        "gmac": cost.gmac,
        "seconds": cost.seconds,
        "notes": list(sweep.plan.notes),
    }
