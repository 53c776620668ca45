"""``tokred train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    spec: Annotated[Path, typer.Argument(help="A recipe, e.g. experiments/train_nano.yaml.")],
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default results/train-NAME.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start anew instead of going on from the last checkpoint.")
    ] = False,
) -> int:
    """Train a backbone (or, in later versions, a learned reducer) from a recipe; resumable."""
    from tokred.run.train import train

    train(spec, out if out is not None else Path("results") / f"train-{spec.stem}", resume=not fresh)
    return 0
