"""``tokred compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokred.cli.options import (
    Animate,
    Backbone,
    Checkpoint,
    Classes,
    Data,
    Device,
    Dtype,
    Json,
    Sampling,
    Seed,
    Stride,
    Views,
    number,
    one_of,
    pair,
    print_json,
    shares,
    whole,
)


def command(
    backbone: Backbone = "videomae_vit_nano",
    checkpoint: Checkpoint = None,
    data: Data = "synthetic",
    animate: Animate = False,
    clips: Annotated[
        int | None,
        typer.Option("--clips", parser=whole(1), help="Generated clips (default 1000), or videos at most."),
    ] = None,
    reducers: Annotated[
        str | None,
        typer.Option(
            "--reducers", help="e.g. sta:r=64,tome,pkg.mod:Class,FILE.py:Class; default: every registered method."
        ),
    ] = None,
    budgets: Annotated[
        str | None,
        typer.Option(
            "--budgets",
            callback=lambda v: v,
            help="Shares of the unreduced multiply-adds, e.g. 0.75,0.5; default 0.75,0.5,0.35.",
        ),
    ] = None,
    budget_by: Annotated[
        str, typer.Option("--budget-by", callback=one_of("macs", "time"), help="What budgets are shares of.")
    ] = "macs",
    views: Views = "1x1",
    sampling: Sampling = "dense",
    stride: Stride = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", parser=whole(1), help="Default: from the model's size.")
    ] = None,
    timing: Annotated[
        float, typer.Option("--timing", parser=number(0), help="Seconds for the interleaved timing; 0 = none.")
    ] = 20.0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Run folder; default results/compare-..., the same for the same settings."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute finished rows again.")] = False,
    allow_untrained: Annotated[
        bool, typer.Option("--allow-untrained", help="Run learned reducers whose parameters are random.")
    ] = False,
    num_classes: Classes = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Every reducer on one backbone and one set of clips: table, results file, plots and one HTML report."""
    from rich.console import Console

    from tokred.cli.progress import RichProgress
    from tokred.registry import broken_plugins
    from tokred.report import print_table, write_run
    from tokred.run.compare import compare
    from tokred.run.results import failures_of
    from tokred.run.settings import CompareSettings, default_out
    from tokred.spec_text import split_specs

    settings = CompareSettings(
        backbone=backbone,
        checkpoint=None if checkpoint is None else str(checkpoint),
        data=data,
        clips=clips,
        reducers=None if reducers is None else tuple(split_specs(reducers)),
        budgets=shares(budgets),
        budget_by=budget_by,
        views=pair(views),
        sampling=sampling,
        stride=stride,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        seed=seed,
        timing_seconds=timing,
        num_classes=num_classes,
        fresh=fresh,
        allow_untrained=allow_untrained,
        animate=animate,
    )
    folder = out if out is not None else default_out(settings)
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file; allowed is a folder", param_hint="--out")
    console = Console(stderr=True)
    progress = RichProgress(console)
    for plugin in broken_plugins():
        progress.note(f"plug-in {plugin.name} ({plugin.distribution}) could not be loaded: {plugin.reason}")
    results = compare(settings, folder, progress)
    write_run(results, folder)
    if json:
        print_json(results)
    else:
        print_table(results)
        print(f"report: {folder / 'report.html'}")
    if not results["complete"]:
        done = sum(row["status"] == "done" for row in results["rows"])
        progress.note(
            f"stopped: {done} of {len(results['rows'])} rows are kept in {folder}; the same command goes on from there"
        )
        return 1
    failed = failures_of(results, asked_for=reducers is not None)
    if failed:
        progress.note(f"{len(failed)} failed: {', '.join(failure.path for failure in failed)}")
    return 1 if failed else 0
