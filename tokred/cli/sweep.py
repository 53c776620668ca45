"""``tokred sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tokred.cli.options import DTYPES, Device, Json, number, one_of, print_json, whole

if TYPE_CHECKING:
    from tokred.cli.progress import RichProgress
    from tokred.run.spec_file import SpecError
    from tokred.run.store import CellStore
    from tokred.run.sweep import Sweep

ENGINES = ("local", "ray")
AS_WRITTEN = "as written"


def command(
    files: Annotated[list[Path], typer.Argument(help="Sweeps, e.g. experiments/sta_table2.yaml.")],
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
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Run folder; default results/NAME-PROFILE. Of several files: a folder each, and shared cells."
        ),
    ] = None,
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
    seed: Annotated[
        int | None,
        typer.Option("--seed", parser=whole(0), help="The same as --set seeds=[SEED]; default as written."),
    ] = None,
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
    from tokred.cli.sweep_cells import cost_lines, cost_values
    from tokred.report import print_run, write_run
    from tokred.report.frames import sweep_frame
    from tokred.run.engine import make_engine
    from tokred.run.spec_file import SpecError
    from tokred.run.store import CellStore
    from tokred.run.sweep import SweepStopped, open_sweep, run_sweep
    from tokred.run.sweep_cost import estimate

    if parquet:
        _need_pyarrow()
    if seed is not None and any(text.partition("=")[0].strip() == "seeds" for text in sets or []):
        raise typer.BadParameter(f"{seed} and --set seeds exclude each other; one is allowed", param_hint="--seed")
    changes = [*(sets or []), *([] if dtype == AS_WRITTEN else [f"base.dtype={dtype}"])]
    changes += [] if seed is None else [f"seeds=[{seed}]"]
    runs: list[_Run] = []
    refused = 0
    for file in files:
        try:
            opened = _open_dry if dry_run else open_sweep
            sweep = opened(file, profile, changes, device=device)
        except SpecError as error:
            refused = _refuse(error)
            continue
        several = out is not None and len(files) > 1
        folder = sweep.folder if out is None else out / sweep.spec.name if several else out
        if folder.exists() and not folder.is_dir():
            raise typer.BadParameter(f"{folder} is a file; allowed is a folder", param_hint="--out")
        runs.append(_Run(sweep, folder, CellStore(out if several and out is not None else folder)))
    if refused:
        return refused
    if len({run.folder for run in runs}) < len(runs):
        names = ", ".join(run.sweep.spec.name for run in runs)
        raise ValueError(f"several files have one name: {names}")
    if dry_run:
        costs = [estimate(run.sweep.plan, run.store, fresh=fresh, retry_failed=retry_failed) for run in runs]
        if json:
            found = [cost_values(run.sweep, cost) for run, cost in zip(runs, costs, strict=True)]
            print_json(found if len(found) > 1 else found[0])
        else:
            for run, cost in zip(runs, costs, strict=True):
                print(
                    "\n".join(
                        [
                            *([f"{run.sweep.spec.name}:"] if len(runs) > 1 else []),
                            *cost_lines(run.sweep, cost, workers or 1),
                        ]
                    )
                )
        return 0
    progress = RichProgress(Console(stderr=True))
    status, all_results = 0, []
    with make_engine(engine, workers, device, address, num_gpus) as team:
        for run in runs:
            if len(runs) > 1:
                progress.note(f"{run.sweep.spec.name}: {run.sweep.spec.title}")
            try:
                results = run_sweep(
                    run.sweep,
                    run.folder,
                    team,
                    parts=parts,
                    fresh=fresh,
                    retry_failed=retry_failed,
                    command=shlex.join(["tokred", *sys.argv[1:]]),
                    progress=progress,
                    store=run.store,
                )
                write_run(results, run.folder)
                if parquet:
                    _write_parquet(results, run.folder)
            except OSError as error:
                print(f"tokred: nothing can be written to {run.folder}: {error.strerror or error}", file=sys.stderr)
                return 1
            except SweepStopped as error:
                print(f"tokred: {error}", file=sys.stderr)
                return 1
            all_results.append(results)
            if csv:
                print(sweep_frame(results).to_csv(index=False, lineterminator="\n"), end="")
            elif not json:
                print_run(results)
                print(f"report: {run.folder / 'report.html'}\n")
            unfinished, interrupted = _say_what_is_missing(run, progress)
            status = max(status, int(unfinished))
            if interrupted:
                break
    if json:
        print_json(all_results if len(runs) > 1 else all_results[0])
    return status


def _open_dry(file: Path, profile: str | None, changes: list[str], *, device: str) -> Sweep:
    """``open_sweep`` where nothing will be computed: weights and clips need not be there."""
    from tokred.run.spec_file import read_yaml
    from tokred.run.sweep import Sweep
    from tokred.run.sweep_file import draft_sweep
    from tokred.run.sweep_planner import plan_draft

    draft = draft_sweep(read_yaml(file), str(file), changes, profile)
    return Sweep(*plan_draft(draft, profile, device=device, dry=True), device)


class _Run(NamedTuple):
    """A sweep with the folder of its results and the store of its cells."""

    sweep: Sweep
    folder: Path
    store: CellStore


def _say_what_is_missing(run: _Run, progress: RichProgress) -> tuple[bool, bool]:
    """Whether a cell is missing, and whether that is because the run was stopped."""
    from tokred.run.sweep import failed_cells

    failed = failed_cells(run.sweep, run.store)
    missing = [id_ for id_ in run.sweep.plan.wanted if run.store.read(id_) is None]
    if len(missing) > len(failed):
        total = len(run.sweep.plan.wanted)
        progress.note(
            f"stopped: {total - len(missing)} of {total} cells are kept in {run.store.folder.parent}; "
            "the same command goes on from there"
        )
    for name, reason in failed.items():
        progress.note(f"failed: {name}: {reason}")
    return bool(missing), len(missing) > len(failed)


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
