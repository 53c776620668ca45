"""``tokred report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or their results.json.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> int:
    """Render the tables, plots and HTML of finished runs again, or of several runs together."""
    from tokred.report import print_table, render, write_run

    loaded = [_load(run) for run in runs]
    for run, results in zip(runs, loaded, strict=True):
        folder = run if run.is_dir() else run.parent
        write_run(results, folder)
        print_table(results)
    out.parent.mkdir(parents=True, exist_ok=True)
    render(loaded, out)
    print(f"report: {out}")
    return 0


def _load(run: Path) -> dict[str, Any]:
    path = run / "results.json" if run.is_dir() else run
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"{run} is not a run: {error.strerror or error}: {path}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict) or results.get("schema") != 1 or not isinstance(results.get("rows"), list):
        raise ValueError(f"{path} is not a results file of this version (schema 1)")
    return results
