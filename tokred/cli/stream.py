"""``tokred stream``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tokred.cli.options import Backbone, Checkpoint, Classes, Device, Dtype, Json, Seed, Stride, print_json, whole

GIGA = 1e9


def command(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    reducer: Annotated[
        str, typer.Option("--reducer", help="A gating method, e.g. eventful:r=64 or eventful:threshold=1.")
    ] = "eventful:fraction=0.25",
    backbone: Backbone = "videomae_vit_nano",
    checkpoint: Checkpoint = None,
    stride: Stride = None,
    hop: Annotated[
        int | None,
        typer.Option("--hop", parser=whole(1), help="Sampled frames from one clip to the next; default one tubelet."),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", parser=whole(1), help="Stop after so many frames (or clips).")
    ] = None,
    check: Annotated[
        int, typer.Option("--check", parser=whole(1), help="Run the full model on every so-many-th frame.")
    ] = 1,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default results/stream-VIDEO.")] = None,
    num_classes: Classes = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """A video through a gated model: updates, cost and agreement with the full model over time, as table, PNG, JSON."""
    from json import dumps

    from rich.console import Console

    from tokred.cli.progress import RichProgress
    from tokred.report.canvas import png
    from tokred.report.stream_plot import stream_picture
    from tokred.report.text import clean
    from tokred.run.store import write_atomic
    from tokred.run.stream import StreamSettings, stream

    folder = out if out is not None else Path("results") / f"stream-{video.stem}"
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file; allowed is a folder", param_hint="--out")
    settings = StreamSettings(
        video=str(video),
        backbone=backbone,
        checkpoint=None if checkpoint is None else str(checkpoint),
        reducer=reducer,
        stride=stride,
        hop=hop,
        frames=frames,
        check=check,
        num_classes=num_classes,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    results = stream(settings, RichProgress(Console(stderr=True)))
    write_atomic(folder / "stream.json", dumps(results, indent=1, allow_nan=False).encode())
    write_atomic(folder / "stream.png", png(stream_picture(results)))
    if json:
        print_json(results)
        return 0
    for line in lines(results):
        print(clean(line))
    print(f"written: {folder / 'stream.json'}, {folder / 'stream.png'}")
    return 0


def lines(results: dict[str, Any]) -> list[str]:
    """The table in words."""
    summary, full = results["summary"], results["unreduced_macs"]
    found = [
        f"{results['backbone']} with {results['reducer']} on {results['video']}: {summary['calls']} calls, "
        f"{results['tokens']} tokens, state {results['state_bytes'] / 2**20:.1f} MiB",
        f"{'':<10}{'GMAC':>9}{'GFLOP':>9}{'of full':>9}{'ms':>9}",
        _cost("full", full, 1.0, summary["full_ms"]),
        _cost("flush", summary["flush_macs"], _ratio(summary["flush_macs"], full), summary["flush_ms"]),
        _cost("steady", summary["steady_macs"], summary["steady_share"], summary["steady_ms"]),
        _cost("mean", summary["mean_macs"], summary["mean_share"], None),
    ]
    if summary["updates"]:
        sent = ", ".join(f"{gate} {number:.1f}" for gate, number in summary["updates"].items())
        found.append(f"updated per frame and block: {sent} of {results['tokens']} tokens")
    found.append(f"agreement with the full model on {summary['checked']} calls, over time:")
    found.append(f"{'':<10}{'same top-1':>11}{'KL, nats':>10}{'logit error':>13}")
    for i, part in enumerate(summary["quarters"], start=1):
        found.append(_part(f"part {i}", part))
    found.append(_part("all", summary))
    return found + [f"note: {note}" for note in results["notes"]]


def _cost(name: str, macs: float | None, share: float | None, ms: float | None) -> str:
    if macs is None or share is None:
        return f"{name:<10}{'-':>9}{'-':>9}{'-':>9}{'-':>9}"
    time = "-" if ms is None else f"{ms:.1f}"
    return f"{name:<10}{macs / GIGA:>9.3f}{2 * macs / GIGA:>9.3f}{share:>9.1%}{time:>9}"


def _part(name: str, values: dict[str, Any]) -> str:
    return f"{name:<10}{values['same_top1']:>11.1%}{values['kl']:>10.4f}{values['logit_error']:>13.4f}"


def _ratio(macs: float | None, full: float) -> float | None:
    return None if macs is None else macs / full
