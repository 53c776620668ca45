"""Decoding chosen frames of a video, whatever its container, codec, rotation or header say.

Frames are numbered in the order in which the decoder gives them out, which is the order of display. Time stamps are not
used for that: in AVI files they are guessed from the storage order and run backwards. Only the wanted frames are
converted and kept, so memory does not grow with the length of the video; the file is always decoded to its end, so
that damage anywhere in it is found whichever frames are wanted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from tokred.data.container import DecodeError, Note, PacketIndex, open_video, read_index, words

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Picture = npt.NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True)
class VideoInfo:
    """What was found in a video that decodes from its first to its last frame.

    Args:
        path: the file.
        frames: number of frames, counted by decoding.
        height, width: of the displayed picture, after the rotation tag.
        fps: average frames per second, or None where the file does not say.
        codec, pixel_format: FFmpeg's names.
        stream: index of the stream that was read.
        notes: what was not as expected.
    """

    path: str
    frames: int
    height: int
    width: int
    fps: float | None
    codec: str
    pixel_format: str
    stream: int
    notes: tuple[Note, ...]


def probe(path: Path | str, *, threads: int = 1) -> VideoInfo:
    """Decode a whole video without keeping a frame.

    Raises:
        DecodeError: it cannot be opened, holds no video, or does not decode to its end.
    """
    return read_frames(path, lambda count: (), lambda picture: None, threads=threads)[1]


def decode(path: Path | str, indices: Iterable[int] | None = None, *, threads: int = 1) -> tuple[Picture, VideoInfo]:
    """Decode the given frames, in the given order, or all of them.

    Args:
        path: the file.
        indices: frame numbers, from 0; may repeat. None = every frame, all of them in memory.
        threads: decoding threads.

    Returns:
        (T, H, W, 3) uint8 RGB, and what was found.

    Raises:
        DecodeError: see `probe`. IndexError: a frame number outside the video.
    """
    wanted = None if indices is None else list(indices)
    found: dict[int, Picture]
    found, info = read_frames(path, lambda count: range(count) if wanted is None else wanted, threads=threads)
    order = range(info.frames) if wanted is None else wanted
    return np.stack([found[index] for index in order]), info


def _itself(picture: Any) -> Any:
    return picture


def read_frames(
    path: Path | str,
    choose: Callable[[int], Iterable[int]],
    keep: Callable[[Picture], T] = _itself,
    *,
    threads: int = 1,
) -> tuple[dict[int, T], VideoInfo]:
    """Decode a video and keep what `keep` makes of the chosen frames.

    The packets are counted first (no decoding), so that one decoding pass is enough for nearly every file; where the
    decoder gives another number of frames, the choice is made again and missing frames are fetched in a second pass.

    Args:
        path: the file.
        choose: number of frames -> the wanted frame numbers, from 0. May be called twice.
        keep: (H, W, 3) uint8 RGB -> what to keep, for example a smaller picture.
        threads: decoding threads; with more than one, some releases of FFmpeg hang.

    Returns:
        frame number -> what was kept; and what was found.

    Raises:
        DecodeError: it cannot be opened, holds no video, or does not decode to its end.
        IndexError: a chosen number lies outside the video.
    """
    path = Path(path)
    index = read_index(path)
    wanted = set(choose(index.packets)) if index.packets else set()
    kept, info = _decode_pass(path, index, wanted, keep, threads)
    if info.frames != index.packets:
        wanted = set(choose(info.frames))
    _require_inside(path, wanted, info.frames)
    if not wanted <= kept.keys():
        kept, again = _decode_pass(path, index, wanted, keep, threads)
        if again.frames != info.frames:
            raise DecodeError(path, f"decodes to {info.frames} frames, and to {again.frames} the second time")
    return {number: kept[number] for number in sorted(wanted)}, info


def _require_inside(path: Path, wanted: set[int], frames: int) -> None:
    outside = sorted(number for number in wanted if not 0 <= number < frames)
    if outside:
        raise IndexError(f"{path}: frame {outside[0]} of a video with frames 0..{frames - 1}")


def _decode_pass(
    path: Path, index: PacketIndex, wanted: set[int], keep: Callable[[Picture], T], threads: int
) -> tuple[dict[int, T], VideoInfo]:
    import av

    kept: dict[int, T] = {}
    notes: dict[str, str] = {}
    count = concealed = 0
    size: tuple[int, int] | None = None
    with open_video(path, threads) as opened:
        stream, context = opened.stream, opened.stream.codec_context
        try:
            for frame in opened.container.decode(stream):
                if size is None:
                    size, displayed, pixel_format = (frame.width, frame.height), _displayed(frame), frame.format.name
                if (frame.width, frame.height) != size:
                    notes["picture size changes, scaled to the first"] = f"{frame.width}x{frame.height} after {count}"
                concealed += bool(frame.is_corrupt)
                if count in wanted:
                    kept[count] = keep(_picture(frame, size, notes))
                count += 1
        except (av.FFmpegError, OSError) as error:
            total = index.announced or index.packets
            reason = f"damaged: decoding stops after {count} of {total} frames ({words(error)})"
            raise DecodeError(path, reason) from error
        codec, number, rate = context.name, stream.index, stream.average_rate
    if size is None:
        raise DecodeError(path, f"no frame can be decoded ({index.packets} packets of {codec})")
    short = index.shortfall()
    if index.error:
        raise DecodeError(path, f"damaged: reading stops after {count} frames ({index.error})")
    if index.cut_off:
        raise DecodeError(path, f"cut off: {short} ({count} frames; the decoder signals no error)")
    if short:
        notes["ends earlier than its header says"] = short
    if concealed:
        notes["damaged frames, repaired by the decoder"] = f"{concealed} of {count} frames"
    if index.announced and index.announced != count:
        notes["frame count in the header is wrong"] = f"{index.announced} announced, {count} decoded"
    height, width = displayed
    found = opened.notes + tuple(Note(*note) for note in notes.items())
    fps = float(rate) if rate else None
    return kept, VideoInfo(str(path), count, height, width, fps, codec, pixel_format, number, found)


def _picture(frame: VideoFrame, size: tuple[int, int], notes: dict[str, str]) -> Picture:
    """RGB of one frame, upright; swscale reads matrix and range (limited or full) of the colours off the frame."""
    picture: Picture = np.asarray(frame.to_ndarray(format="rgb24", width=size[0], height=size[1], threads=1), np.uint8)
    matrix = _display_matrix(frame)
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if a and d and not (b or c):  # x' = a x, y' = d y
        return np.ascontiguousarray(picture[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1])
    if b and c and not (a or d):  # x' = c y, y' = b x
        return np.ascontiguousarray(picture.transpose(1, 0, 2)[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1])
    notes["rotation tag is no multiple of 90 degrees, ignored"] = f"matrix {a} {b} {c} {d}"
    return picture


def upright(frame: VideoFrame, size: tuple[int, int]) -> Picture:
    """RGB of one frame, (H, W, 3) uint8, turned as its tag says.

    Args:
        size: (width, height) before turning; a frame of another size is scaled to it.
    """
    return _picture(frame, size, {})


def _displayed(frame: VideoFrame) -> tuple[int, int]:
    """(height, width) after the rotation tag."""
    a, b, c, d = _display_matrix(frame) or (1, 0, 0, 1)
    return (frame.width, frame.height) if b and c and not (a or d) else (frame.height, frame.width)


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int] | None:
    """The linear part (a, b, c, d) of x' = a x + c y, y' = b x + d y (16.16 fixed point), or None without a tag."""
    tag: Any = frame.side_data.get("DISPLAYMATRIX")
    if tag is None:
        return None
    a, b, _, c, d = struct.unpack_from("=5i", bytes(tag))
    return (a, b, c, d)
