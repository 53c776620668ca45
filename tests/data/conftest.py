"""Small videos made on the spot. Every picture carries its frame number as eight black or white bars."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BITS = 8


def coded_picture(number: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8: bar i of eight is white where bit i of the number is set; the lowest quarter is a ramp."""
    bits = np.array([255 * (number >> bit & 1) for bit in range(BITS)], np.uint8)
    picture = np.broadcast_to(bits[np.arange(width) * BITS // width][None, :, None], (height, width, 3)).copy()
    picture[-height // 4 :] = np.linspace(40, 200, width).astype(np.uint8)[None, :, None]
    return picture


def read_codes(pictures: np.ndarray) -> list[int]:
    """The frame numbers in pictures (T, H, W, 3)."""
    width = pictures.shape[2]
    centres = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    rows = slice(pictures.shape[1] // 4, pictures.shape[1] // 2)
    bars = np.stack([pictures[:, rows, x - 1 : x + 2].mean(axis=(1, 2, 3)) > 127 for x in centres], axis=1)
    return [int(sum(1 << bit for bit, white in enumerate(row) if white)) for row in bars]


def write_video(
    path: Path,
    frames: int = 20,
    *,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    fps: int = 25,
    times: Iterable[int] | None = None,
    picture: Callable[[int, int, int], np.ndarray] = coded_picture,
    options: dict[str, str] | None = None,
    format: str | None = None,
    prepare: Callable[[Any], None] | None = None,
) -> Path:
    """Write a video of (height, width) ``size``; ``times`` are presentation times in milliseconds."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if prepare is not None:
            prepare(stream)
        moments = list(range(frames)) if times is None else list(times)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = moments[number]
            frame.time_base = Fraction(1, 1000) if times is not None else Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    return write_video


@pytest.fixture(scope="session")
def codes_of() -> Callable[[np.ndarray], list[int]]:
    return read_codes


@pytest.fixture(scope="session")
def coded() -> Callable[[int, int, int], np.ndarray]:
    return coded_picture


@pytest.fixture
def cut() -> Callable[[Path, float], Path]:
    """Cut the end off a file: keep this share of its bytes."""

    def keep_start(path: Path, share: float) -> Path:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return keep_start
