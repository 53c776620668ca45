"""The frames of a video one after another: constant memory, however long it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tokred.data.container import DecodeError, open_video, read_index, words
from tokred.data.decode import Picture, upright


def frames_of(path: Path | str, *, stride: int = 1, threads: int = 1) -> Iterator[Picture]:
    """Every ``stride``-th frame in the order of display, from the first, (H, W, 3) uint8 RGB.

    Args:
        path: the file; threads: decoding threads.
    Raises:
        DecodeError: it cannot be opened, holds no video, or does not decode to its end: after the frames before that.
    """
    import av

    path = Path(path)
    index = read_index(path)
    count = 0
    size: tuple[int, int] | None = None
    with open_video(path, threads) as opened:
        try:
            for frame in opened.container.decode(opened.stream):
                size = size or (frame.width, frame.height)
                if count % stride == 0:
                    yield upright(frame, size)
                count += 1
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(path, f"damaged: decoding stops after {count} frames ({words(error)})") from error
    if count == 0:
        raise DecodeError(path, f"no frame can be decoded ({index.packets} packets)")
    if index.error or index.cut_off:
        raise DecodeError(path, f"cut off after {count} frames ({index.error or index.shortfall()})")
