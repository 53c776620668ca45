"""``tokred report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or their results.json or sweep.json.")],
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> int:
    """Render the tables, plots and HTML of finished runs again, or of several runs together."""
    import sys

    from tokred.report import print_run, render, write_run
    from tokred.report.frames import load_run

    loaded, refused = [], []
    for run in runs:
        try:
            loaded.append(load_run(run))
        except ValueError as error:
            refused.append(f"tokred: {error}")
    if refused:
        print("\n".join(refused), file=sys.stderr)
        return 2
    for run, results in zip(runs, loaded, strict=True):
        folder = run if run.is_dir() else run.parent
        write_run(results, folder)
        print_run(results)
    out.parent.mkdir(parents=True, exist_ok=True)
    render(loaded, out)
    print(f"report: {out}")
    return 0
