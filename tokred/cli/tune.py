"""``tokred tune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    Views,
    number,
    pair,
    print_json,
    whole,
)


def command(
    reducer: Annotated[str, typer.Argument(help="A method, with the settings that shall stay, e.g. sta or tome.")],
    budget: Annotated[
        float, typer.Option("--budget", parser=number(0.02, 1), help="Share of the unreduced multiply-adds.")
    ] = 0.5,
    backbone: Backbone = "videomae_vit_nano",
    checkpoint: Checkpoint = None,
    data: Data = "synthetic",
    animate: Animate = False,
    calibration: Annotated[int, typer.Option("--calibration", parser=whole(8), help="Clips to tune on.")] = 200,
    test: Annotated[int, typer.Option("--test", parser=whole(8), help="Other clips to test on.")] = 800,
    trials: Annotated[int, typer.Option("--trials", parser=whole(1), help="Schedules to try.")] = 40,
    views: Views = "1x1",
    sampling: Sampling = "dense",
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default results/tune-REDUCER-BACKBONE.")] = None,
    num_classes: Classes = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Search where a method's steps run and how much each takes, at a fixed cost; tested on other clips."""
    from json import dumps

    from rich.console import Console

    from tokred.cli.progress import RichProgress
    from tokred.report.canvas import png
    from tokred.report.tune_plot import tune_picture
    from tokred.run.clips import ClipSettings
    from tokred.run.store import write_atomic
    from tokred.run.tune import TuneSettings, tune

    settings = TuneSettings(
        reducer=reducer,
        budget=budget,
        backbone=backbone,
        checkpoint=None if checkpoint is None else str(checkpoint),
        num_classes=num_classes,
        clips=ClipSettings(data, calibration + test, pair(views), sampling, None, seed, animate),
        calibration=calibration,
        test=test,
        trials=trials,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    tidy = "".join(c if c.isalnum() or c == "_" else "-" for c in f"{reducer}-{budget:g}-{backbone}-{seed}")
    folder = out if out is not None else Path("results") / f"tune-{tidy}"
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file; allowed is a folder", param_hint="--out")
    found = tune(settings, folder, RichProgress(Console(stderr=True)))
    write_atomic(folder / "tune.json", dumps(found, indent=1, allow_nan=False).encode())
    write_atomic(folder / "tune.png", png(tune_picture(found)))
    if json:
        print_json(found)
    else:
        print("\n".join(lines(found)))
        print(f"written: {folder / 'tune.json'}, {folder / 'tune.png'}")
    return 0 if found["complete"] and found["tuned"] is not None else 1


def lines(found: dict[str, Any]) -> list[str]:
    """The result in words."""
    tuned, own = found["tuned"], found["own"]
    tried = sum(trial["loss"] is not None for trial in found["trials"])
    clips = found["clips"]
    text = [
        f"{'':<8}{'loss, nats':>11}{'share':>8}  schedule",
        f"{'own':<8}{own['loss']:>11.4f}{own['share']:>8.1%}  {own['spec']}",
    ]
    if tuned is None:
        return [*text, f"no schedule of {len(found['trials'])} tried costs what it should"]
    text.append(f"{'tuned':<8}{tuned['loss']:>11.4f}{tuned['share']:>8.1%}  {tuned['spec']}")
    text.append(
        f"{tried} schedules tried on {clips['tuned_on']} clips; tested on {clips['tested_on']} others "
        f"({clips['shared']} shared):"
    )
    if not found["better"]:
        text.append("on the clips to tune on none of them was better than the method's own schedule: keep that one")
    for name, gain in found["gain"]["accuracy"].items():
        text.append(
            f"  {name}: {gain['own']:.1%} -> {gain['tuned']:.1%}, gain {100 * gain['gain']:+.1f} points "
            f"[{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}], p = {gain['p']:.3f}"
        )
    divergence = found["gain"]["kl"]
    text.append(f"  KL from the unreduced model: {divergence['own']:.4f} -> {divergence['tuned']:.4f} nats")
    return text
