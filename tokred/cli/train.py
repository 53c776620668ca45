"""``tokred train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tokred.cli.options import Device, Json, one_of, print_json, whole

PRECISIONS = {"recipe": None, "float32": "fp32", "bfloat16": "bf16"}


def command(
    spec: Annotated[Path, typer.Argument(help="A recipe, e.g. experiments/train_nano.yaml.")],
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; default results/train-NAME.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Where CIFAR-10 lies, for recipes that train on it.")
    ] = None,
    reducer: Annotated[
        str | None, typer.Option("--reducer", help="Train with this reducer switched on, e.g. sta:r=12.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of going on from the checkpoint.")] = False,
    threads: Annotated[int | None, typer.Option("--threads", parser=whole(1), help="CPU threads.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", parser=whole(0), help="Instead of the recipe's.")] = None,
    dtype: Annotated[
        str, typer.Option("--dtype", callback=one_of(*PRECISIONS), help=f"One of {', '.join(PRECISIONS)}.")
    ] = "recipe",
    device: Device = "cpu",
    json: Json = False,
) -> int:
    """Train a backbone from a recipe; a stopped run goes on where it was."""
    from tokred.run.train import train

    def say(text: str) -> None:
        print(text, file=sys.stderr if json else sys.stdout, flush=True)

    folder = out if out is not None else Path("results") / f"train-{spec.stem}"
    try:
        result = train(
            spec,
            folder,
            resume=not fresh,
            data=data,
            seed=seed,
            precision=PRECISIONS[dtype],
            reducer=reducer,
            device=device,
            threads=threads,
            say=say,
        )
    except RuntimeError as error:
        print(f"tokred: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if json:
        print_json(result.summary())
    return 0
