"""``tokred show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tokred.cli.options import (
    Animate,
    Backbone,
    Checkpoint,
    Classes,
    Device,
    Dtype,
    Json,
    Seed,
    Stride,
    print_json,
    whole,
)


def command(
    video: Annotated[str, typer.Argument(help="A video; or a folder, a list, synthetic, images:PATH, cifar10:PATH.")],
    reducer: Annotated[
        list[str],
        typer.Option(
            "--reducer", help="e.g. sta:r=21; may be repeated. Without a strength: half of the multiply-adds."
        ),
    ],
    backbone: Backbone = "videomae_vit_nano",
    checkpoint: Checkpoint = None,
    out: Annotated[Path, typer.Option("--out", help="A .png (strip of frames), .gif or .mp4.")] = Path("show.png"),
    clip: Annotated[int, typer.Option("--clip", parser=whole(0), help="Which item, counted from 0.")] = 0,
    stages: Annotated[int, typer.Option("--stages", parser=whole(1), help="Steps of each reducer at most.")] = 4,
    stride: Stride = None,
    animate: Animate = False,
    num_classes: Classes = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Which patches reducers keep or merge in a clip: dropped ones fade, merged ones share a colour and a border."""
    from tokred.api import show
    from tokred.report.show import SUFFIXES, describe, save

    if out.suffix.lower() not in SUFFIXES or out.is_dir():
        raise typer.BadParameter(f"{str(out)!r} is not a file that ends in {', '.join(SUFFIXES)}", param_hint="--out")
    shown = show(
        video,
        reducer,
        backbone=backbone,
        checkpoint=checkpoint,
        num_classes=num_classes,
        clip=clip,
        stages=stages,
        stride=stride,
        animate=animate,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    save(shown, out)
    if json:
        found = [
            {
                "reducer": one.spec,
                "share": one.share,
                "notes": list(one.notes),
                "stages": [{"block": s.block, "tokens": s.tokens, "source": s.source.tolist()} for s in one.stages],
            }
            for one in shown.reducers
        ]
        print_json({"clip": shown.name, "backbone": shown.backbone, "grid": list(shown.grid), "reducers": found})
        return 0
    for one in shown.reducers:
        for stage in one.stages:
            print(describe(one, stage))
        for note in one.notes:
            print(f"note: {note}")
    print(f"picture: {out}")
    return 0
