"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

DTYPES = ("float32", "bfloat16", "float16", "float64")


def one_of(*allowed: str) -> Callable[[str], str]:
    """A callback that refuses what is not in the list, with a close match."""

    def check(value: str) -> str:
        if value in allowed:
            return value
        close = difflib.get_close_matches(value, allowed, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}{hint}")

    return check


def whole(low: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``low`` on."""

    def parse(value: str) -> int:
        text = str(value).strip()
        if not text.lstrip("-").isdecimal() or int(text) < low:
            raise typer.BadParameter(f"{text!r} is not a whole number of at least {low}")
        return int(text)

    return parse


def number(low: float, high: float = float("inf")) -> Callable[[str], float]:
    """A parser of numbers from ``low`` to ``high``."""

    def parse(value: str) -> float:
        allowed = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        try:
            found = float(value)
        except ValueError:
            found = float("nan")
        if not low <= found <= high or found == float("inf"):
            raise typer.BadParameter(f"{str(value)!r} is not a number {allowed}")
        return found

    return parse


def device_name(value: str) -> str:
    """A device that this machine has."""
    from tokred.run.environment import check_device

    try:
        return check_device(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def shares(value: str | None) -> tuple[float, ...] | None:
    """Comma-separated shares in (0, 1]; percentages are understood."""
    if value is None:
        return None
    found = []
    for piece in value.split(","):
        text = piece.strip()
        try:
            number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            raise typer.BadParameter(
                f"{piece.strip()!r} is not a number; allowed are shares in (0, 1], e.g. 0.75,0.5"
            ) from None
        if not 0 < number <= 1:
            raise typer.BadParameter(f"{piece.strip()} is not in (0, 1]; budgets are shares of the unreduced cost")
        found.append(number)
    return tuple(found)


def pair(value: str) -> tuple[int, int]:
    """``CLIPSxCROPS`` as two numbers."""
    left, _, right = value.lower().partition("x")
    if not (left.isdecimal() and right.isdecimal() and int(left) > 0 and right in ("1", "3")):
        raise typer.BadParameter(f"{value!r} is not CLIPSxCROPS, e.g. 1x1 or 5x3; crops are 1 or 3")
    return int(left), int(right)


Backbone = Annotated[
    str,
    typer.Option("--backbone", help="A name of `tokred list backbones`, timm/NAME, or hf/FOLDER.", show_default=True),
]
Checkpoint = Annotated[Path | None, typer.Option("--checkpoint", help="Weights file for the backbone.")]
Classes = Annotated[
    int | None,
    typer.Option("--num-classes", parser=whole(1), help="Length of the logits, where the head differs."),
]
Device = Annotated[str, typer.Option("--device", callback=device_name, help="cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option("--dtype", callback=one_of(*DTYPES), help=f"One of {', '.join(DTYPES)}.")]
Seed = Annotated[int, typer.Option("--seed", parser=whole(0), help="Same seed, same table.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="synthetic[:seed=N], a folder of videos or class folders, a `path label` list, a video, cifar10:PATH, "
        "images:PATH.",
    ),
]
Animate = Annotated[
    bool, typer.Option("--animate", help="Turn the pictures of images:PATH or cifar10:PATH into clips.")
]
Views = Annotated[str, typer.Option("--views", help="Clips per video x crops per clip, for real video.")]
Sampling = Annotated[
    str, typer.Option("--sampling", callback=one_of("dense", "uniform"), help="How frames are taken from a video.")
]
Stride = Annotated[
    int | None, typer.Option("--stride", parser=whole(1), help="Frames from one sampled frame to the next (dense).")
]


def print_json(value: Any) -> None:
    """JSON on standard output, NaN as null."""
    import json

    print(json.dumps(value, indent=1, allow_nan=False))
