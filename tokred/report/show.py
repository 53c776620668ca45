"""``tokred show`` as files: a strip of frames as PNG, or the frames one after the other as GIF or MP4."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tokred.report.token_picture import Bytes, member_counts, paint
from tokred.run.show import Followed, Shown, Stage

SUFFIXES = (".png", ".gif", ".mp4")
SIDE = 128
"""Pixels that a drawn frame is high, at least, where that is a whole multiple of its own."""

GAP, HEAD = 6, 22
MOST_FRAMES = 8
"""Frames in a strip; longer clips are thinned evenly, which the picture says."""

PER_SECOND = 4
INK = (31, 36, 48)


def save(shown: Shown, path: Path) -> Path:
    """Write the picture in the form that the suffix names.

    Raises:
        ValueError: another suffix.
    """
    makers = {".png": _png, ".gif": _gif, ".mp4": _mp4}
    if path.suffix.lower() not in makers:
        raise ValueError(f"{path.name}: allowed are {', '.join(SUFFIXES)}")
    from tokred.run.store import write_atomic

    write_atomic(path, makers[path.suffix.lower()](shown))
    return path


def strip(shown: Shown) -> Bytes:
    """All reducers under each other: first the clip, then for each of their stages a row of frames.

    Returns:
        (height, width, 3).
    """
    steps = _steps(shown)
    thinned = "" if len(steps) == shown.grid.t else f", {len(steps)} of {shown.grid.t} steps of time"
    rows = [_titled(f"{shown.name} on {shown.backbone}{thinned}", _row([_frame(shown, t) for t in steps]))]
    for followed in shown.reducers:
        for stage in followed.stages:
            counts = member_counts(stage.source)
            cells = [paint(shown.frames[_at(shown, t)], stage.source[t], counts, _scale(shown)) for t in steps]
            rows.append(_titled(describe(followed, stage), _row(cells)))
    return _stacked(rows)


def describe(followed: Followed, stage: Stage) -> str:
    """The line above a row."""
    dropped = float((stage.source < 0).mean())
    counts = member_counts(stage.source)
    merged = float(counts[counts > 1].sum() / stage.source.size)
    fate = [f"{dropped:.0%} of the patches dropped"] if dropped else []
    fate += [f"{merged:.0%} merged"] if merged else []
    return f"{followed.spec}, behind block {stage.block}: {stage.tokens} tokens" + (
        f", {', '.join(fate)}" if fate else ""
    )


def moments(shown: Shown) -> Iterator[Bytes]:
    """The clip in time: for each step of the grid the frame beside every reducer's last stage and those before it."""
    widest = max(len(followed.stages) for followed in shown.reducers)
    for t in range(shown.grid.t):
        rows = []
        for followed in shown.reducers:
            cells = [_frame(shown, t)]
            for stage in followed.stages:
                counts = member_counts(stage.source)
                cells.append(paint(shown.frames[_at(shown, t)], stage.source[t], counts, _scale(shown)))
            cells += [np.full_like(cells[0], 255)] * (widest + 1 - len(cells))
            rows.append(_titled(describe(followed, followed.stages[-1]), _row(cells)))
        yield _stacked(rows)


def _png(shown: Shown) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(strip(shown)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _gif(shown: Shown) -> bytes:
    from PIL import Image

    first, *others = [
        Image.fromarray(picture).convert("P", palette=Image.Palette.ADAPTIVE) for picture in moments(shown)
    ]
    buffer = io.BytesIO()
    first.save(
        buffer, format="GIF", save_all=True, append_images=others, duration=1000 // PER_SECOND, loop=0, optimize=False
    )
    return buffer.getvalue()


def _mp4(shown: Shown) -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        stream: Any = None
        for picture in moments(shown):
            if stream is None:
                # Half resolution of the colour planes asks for even sizes.
                height, width = (size - size % 2 for size in picture.shape[:2])
                stream = container.add_stream("libx264" if "libx264" in av.codecs_available else "mpeg4", PER_SECOND)
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def _steps(shown: Shown) -> list[int]:
    count = min(shown.grid.t, MOST_FRAMES)
    return np.linspace(0, shown.grid.t - 1, count).round().astype(int).tolist()


def _at(shown: Shown, t: int) -> int:
    """The frame that stands for a step of the grid: the first of its tubelet."""
    return min(t * shown.per_tubelet, len(shown.frames) - 1)


def _scale(shown: Shown) -> int:
    return max(1, SIDE // shown.frames.shape[1])


def _frame(shown: Shown, t: int) -> Bytes:
    scale = _scale(shown)
    return shown.frames[_at(shown, t)].repeat(scale, axis=0).repeat(scale, axis=1)


def _row(cells: list[Bytes]) -> Bytes:
    gap = np.full((cells[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    parts = [cells[0]]
    for cell in cells[1:]:
        parts += [gap, cell]
    return np.concatenate(parts, axis=1)


def _titled(text: str, row: Bytes) -> Bytes:
    """The row under its line of text; a line that is longer than the row makes it wider, never cut."""
    from PIL import Image, ImageDraw

    font = _font()
    needed = int(font.getlength(text)) + 4
    if needed > row.shape[1]:
        row = np.pad(row, ((0, 0), (0, needed - row.shape[1]), (0, 0)), constant_values=255)
    head = Image.new("RGB", (row.shape[1], HEAD), "white")
    ImageDraw.Draw(head).text((2, 3), text, fill=INK, font=font)
    return np.concatenate([np.asarray(head), row])


def _stacked(rows: list[Bytes]) -> Bytes:
    width = max(row.shape[1] for row in rows)
    edge = ((GAP, 0), (GAP, GAP), (0, 0))
    same = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    stacked = np.concatenate([np.pad(row, edge, constant_values=255) for row in same])
    return np.pad(stacked, ((0, GAP), (0, 0), (0, 0)), constant_values=255)


def _font() -> Any:
    import matplotlib
    from PIL import ImageFont

    # The font of the other pictures; it comes with matplotlib.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 13)
