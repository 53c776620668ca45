"""Whole commands as calls: what ``tokred sweep`` and ``tokred show`` do, for notebooks and scripts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from tokred.reducer import TokenReducer
    from tokred.run.show import Shown

PathLike = str | os.PathLike[str]


def sweep(
    file: PathLike | Mapping[str, Any],
    *,
    out: PathLike | None = None,
    set: Sequence[str] = (),
    profile: str | None = None,
    engine: str = "local",
    workers: int | None = 1,
    device: str = "cpu",
    cells: PathLike | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
) -> pd.DataFrame:
    """Compute what is missing of a grid of settings, as ``tokred sweep`` does, and read all of it as one frame.

    Args:
        file: a sweep's file, or a mapping of what such a file holds; both are checked in the same way.
        out: folder of the run, also of its report, table and pictures; default ``results/NAME-PROFILE``.
        set: changes as ``--set`` takes them, e.g. ``["base.clips=50", "axes.order=[FBF,BFB]"]``.
        profile: a size that the file has; default "nano", or the file itself where it has no profiles.
        engine: "local" (processes here) or "ray" (the cluster of ``RAY_ADDRESS``, else one on this machine).
        workers: cells at a time, 1 = in this process, None = as many as there are devices. More than 1 starts
            processes: a script then needs ``if __name__ == "__main__":``.
        device: where cells run, e.g. "cuda".
        cells: folder whose ``cells/`` keeps what is computed, default ``out``; sweeps with the same one compute what
            they have in common once.
        retry_failed: try cells again that failed in an earlier run; fresh: compute finished cells again.
    Returns:
        What ``tokred.results(out)`` gives. Its ``attrs``: ``folder``; ``table``, Markdown text as in table.md;
        ``effects``, one mapping per printed effect and label set (``from``, ``to``, ``at``, ``label``, ``paper`` as
        printed, ``ours``, ``low``, ``high`` as shares of one, ``p``, ``n``, ``verdict``); ``verdicts``, how many of
        each; ``notes``; ``figures``, name -> PNG file, those that there is data for; ``report``, the page.
        A point that failed is a line with ``status`` "failed" and its ``reason``, and a warning.
    Raises:
        SpecError: everything that is wrong with the file, one line each; a ValueError.
        EngineError: an engine that cannot be had; a ValueError.
        SweepStopped: nothing can be written, such as on a full disk.
        KeyboardInterrupt: after everything that is finished was written down; the same call goes on from there.
    """
    from tokred.report import write_run
    from tokred.report.frames import results
    from tokred.report.sweep_table import sweep_markdown
    from tokred.run.engine import make_engine
    from tokred.run.environment import check_device
    from tokred.run.store import CellStore
    from tokred.run.sweep import failed_cells, open_sweep, run_sweep

    if isinstance(set, str):
        raise ValueError(f"set = {set!r} is one text; give a list: [{set!r}]")
    source = file if isinstance(file, Mapping) else Path(file)
    opened = open_sweep(source, profile, tuple(set), device=check_device(device))
    folder = opened.folder if out is None else Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out = {str(folder)!r} is a file; allowed is a folder")
    store = CellStore(folder if cells is None else Path(cells))
    with make_engine(engine, workers, device) as team:
        found = run_sweep(
            opened, folder, team, fresh=fresh, retry_failed=retry_failed, command="tokred.sweep(...)", store=store
        )
    written = write_run(found, folder)
    failed = failed_cells(opened, store)
    wanted = opened.plan.wanted
    if sum(store.read(id_) is None for id_ in wanted) > len(failed):
        raise KeyboardInterrupt(f"what is finished is kept in {store.folder}; the same call goes on from there")
    if failed:
        told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        warnings.warn(f"{len(failed)} of {len(wanted)} cells failed: {told}", RuntimeWarning, stacklevel=2)
    frame = results(folder)
    # Plain values alone: pandas copies and compares them.
    frame.attrs = {
        "folder": str(folder),
        "table": sweep_markdown(found),
        "effects": [dict(effect) for effect in found["effects"]],
        "verdicts": dict(found["verdicts"]),
        "notes": list(found["notes"]),
        "figures": {path.stem: str(path) for path in written if path.suffix == ".png"},
        "report": str(folder / "report.html"),
    }
    return frame


def show(
    video: PathLike | Tensor,
    reducers: Sequence[str | TokenReducer],
    *,
    backbone: str = "videomae_vit_nano",
    checkpoint: PathLike | None = None,
    num_classes: int | None = None,
    clip: int = 0,
    stages: int = 4,
    stride: int | None = None,
    animate: bool = False,
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
) -> Shown:
    """Follow the patches of one clip through reducers, as ``tokred show`` does.

    Args:
        video: what the command takes - a video, folder or list, "synthetic", "images:PATH", "cifar10:PATH" - or a
            clip, (3, F, H, W) or (1, 3, F, H, W), normalised as the backbone takes it.
        reducers: specs or reducers; one without a strength is solved for half of the multiply-adds.
        clip: which item, counted from 0; stages: steps of each reducer at most, the last among them.
        stride, animate, seed: of the data; backbone, checkpoint, num_classes: as for ``tokred.create_backbone``.
    Returns:
        ``.picture()``, the (height, width, 3) bytes that the command draws; ``.save(path)`` for .png, .gif, .mp4;
        ``.frames`` (F, height, width, 3); ``.reducers``, each with its ``spec``, ``share`` of the multiply-adds,
        ``notes`` and ``stages``: ``block``, ``tokens`` that are left, and ``source`` (T, H, W), the token that
        carries each patch, -1 = dropped.
    Raises:
        ValueError: a reducer that is unknown, does not run here or cannot be traced to patches; a clip that is not
            there or has another size.
    """
    from torch import Tensor

    from tokred.run.show import ShowSettings, follow_clip

    if isinstance(reducers, str):
        raise ValueError(f"reducers = {reducers!r} is one text; give a list: [{reducers!r}]")
    settings = ShowSettings(
        video=video if isinstance(video, Tensor) else os.fspath(video),
        reducers=tuple(reducers),
        backbone=backbone,
        checkpoint=None if checkpoint is None else os.fspath(checkpoint),
        num_classes=num_classes,
        clip=clip,
        stages=stages,
        stride=stride,
        animate=animate,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    return follow_clip(settings)
