"""``tokred parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokred.cli.options import Json, print_json


def command(
    folder: Annotated[Path, typer.Argument(help="A folder of golden vectors (*.safetensors).")],
    only: Annotated[str | None, typer.Option("--only", help="Shell pattern of file names.")] = None,
    json: Json = False,
) -> int:
    """Replay golden vectors, one line a file: largest error, decisions equal or not."""
    from dataclasses import asdict

    from tokred.run.parity import replay_folder

    reports = replay_folder(folder, only=only)
    if json:
        print_json([{k: str(v) if isinstance(v, Path) else v for k, v in asdict(r).items()} for r in reports])
    else:
        for report in reports:
            print(report.line())
        passed = sum(r.status == "pass" for r in reports)
        print(f"{passed} of {len(reports)} files pass")
    return 0 if all(r.status == "pass" for r in reports) else 1
