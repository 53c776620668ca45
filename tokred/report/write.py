"""What a finished or interrupted run leaves on disk beside its results.json."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokred.report.frames import sweep_frame
from tokred.report.html import page
from tokred.report.sweep_more import overlap_frame, seeds_frame
from tokred.report.sweep_table import sweep_markdown
from tokred.report.table import csv


def write_run(results: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write results.csv, accuracy_gflops.png, speed.png and report.html into `folder`, each at once or not at all.

    Of a sweep: results.csv, table.md, report.html, and what it has data for: overlap.csv, seeds.csv, and the pictures
    points.png, ablation.png, curves.png, depth.png, retention.png, overlap.png.

    Without labels accuracy_gflops.png shows agreement and feature distance. A picture of something that was not
    measured is not written, and one of an earlier call is removed.

    Args:
        results: as read from results.json or sweep.json; folder: made where it is missing.

    Returns:
        The files that were written.
    """
    from tokred.report import canvas, plots

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if results.get("kind") == "sweep":
        return _write_sweep(results, folder)
    files = {"results.csv": csv(results).encode("utf-8")}
    for name, draw in (("accuracy_gflops.png", plots.quality), ("speed.png", plots.speedup)):
        figure = draw(results)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            files[name] = canvas.png(figure)
    files["report.html"] = page([results]).encode("utf-8")
    return [_write(folder / name, content) for name, content in files.items()]


def _write_sweep(found: Mapping[str, Any], folder: Path) -> list[Path]:
    from tokred.report import canvas
    from tokred.report.sweep_plots import CAPTIONED, pictures

    drawn = pictures(found)
    for name in CAPTIONED:
        if name not in drawn:
            (folder / f"{name}.png").unlink(missing_ok=True)
    frames = {"results": sweep_frame(found), "overlap": overlap_frame(found), "seeds": seeds_frame(found)}
    for name in ("overlap", "seeds"):
        if frames[name].empty:
            (folder / f"{name}.csv").unlink(missing_ok=True)
    files = {
        **{
            f"{name}.csv": str(frame.to_csv(index=False, lineterminator="\n")).encode("utf-8")
            for name, frame in frames.items()
            if name == "results" or not frame.empty
        },
        "table.md": sweep_markdown(found).encode("utf-8"),
        **{f"{name}.png": canvas.png(figure) for name, figure in drawn.items()},
        "report.html": page([found]).encode("utf-8"),
    }
    return [_write(folder / name, content) for name, content in files.items()]


def render(runs: Sequence[Mapping[str, Any]], out: str | os.PathLike[str], title: str | None = None) -> Path:
    """Write one self-contained page for one run or several.

    Args:
        runs: each as read from a results.json; out: the file, or a folder that gets report.html; title: of the page.

    Returns:
        The file.
    """
    path = Path(out)
    if path.is_dir():
        path /= "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    return _write(path, page(runs, title).encode("utf-8"))


def _write(path: Path, content: bytes) -> Path:
    """Write to a file beside it and rename: a reader sees the old file or the new one, never half of one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
