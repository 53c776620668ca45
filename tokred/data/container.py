"""Opening a video file: which stream is read, what its packets promise, and why a file cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# Containers whose header states the duration. In the others FFmpeg derives it from the data, so it can prove nothing.
_STATES_DURATION = frozenset({"matroska", "webm", "mov", "mp4", "avi", "asf", "flv", "mxf"})
# A file is refused when more than this share of the announced time is missing, and remarked upon from the second on.
REFUSE_SHORT, REMARK_SHORT = 0.10, 0.02
_NO_INDEX = "cut off: the index (moov box) of the MP4 file is missing or incomplete"


class DecodeError(ValueError):
    """A video that cannot be used.

    Args:
        path: the file.
        reason: one line.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = str(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Note(NamedTuple):
    """Something that was not as expected and that did not stop the reading: a kind shared by files, and the detail."""

    kind: str
    detail: str


@dataclass(frozen=True)
class Opened:
    """An open container with the one video stream that is read."""

    container: InputContainer
    stream: VideoStream
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class PacketIndex:
    """What the packets of a file say, without decoding.

    Args:
        packets: packets of the chosen stream that are to be shown: the expected number of frames.
        announced: what the header calls the number of frames; 0 = it does not say.
        missing_s: seconds by which the data ends before the time that the header announces (0 = not short, or unknown).
        announced_s: that time, seconds; 0 = it does not say.
        step_s: longest time from a frame to the next, seconds.
        error: why the packets could not be read to the end, or None.
    """

    packets: int
    announced: int
    missing_s: float
    announced_s: float
    step_s: float
    error: str | None

    def shortfall(self) -> str | None:
        """The missing end in words, or None when the data lasts as long as announced (to 2 % or two frames)."""
        if self.missing_s <= max(REMARK_SHORT * self.announced_s, 2 * self.step_s):
            return None
        end = self.announced_s - self.missing_s
        return f"the data ends at {end:.2f} s of the {self.announced_s:.2f} s in the header"

    @property
    def cut_off(self) -> bool:
        """More than a tenth of the announced time is missing."""
        return self.missing_s > max(REFUSE_SHORT * self.announced_s, 2 * self.step_s)


def words(error: Exception) -> str:
    """FFmpeg's reason without the error number and the place in its code."""
    return str(getattr(error, "strerror", None) or error).strip().splitlines()[0].rstrip(".")


@contextmanager
def open_video(path: Path, threads: int = 1) -> Iterator[Opened]:
    """Open a file and choose the stream to read, with ``threads`` decoding threads.

    Raises:
        DecodeError: not a file that can be opened, or without a video stream that can be decoded.
    """
    import av

    _require_file(path)
    try:
        # absolute, because FFmpeg takes what stands before a colon for a protocol
        container = av.open(str(path.absolute()), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise DecodeError(path, _why_not_a_video(path, error)) from error
    with container:
        stream, notes = _choose_stream(path, container)
        # more than one thread has dead-locked in several releases of PyAV
        stream.thread_type = "NONE" if threads == 1 else "AUTO"
        stream.thread_count = threads
        yield Opened(container, stream, notes)


def read_index(path: Path) -> PacketIndex:
    """Walk over the packets of all streams once, without decoding."""
    import av

    packets, step, last_start, error = 0, 0.0, None, None
    ends = {"video": 0.0, "any": 0.0}
    with open_video(path) as opened:
        stream, container = opened.stream, opened.container
        try:
            for packet in container.demux():
                start = packet.pts if packet.pts is not None else packet.dts
                if not packet.size or packet.time_base is None:
                    continue
                mine = packet.stream.index == stream.index
                packets += mine and not packet.is_discard
                if start is None:
                    continue
                seconds = float((packet.duration or 0) * packet.time_base)
                ends["any"] = max(ends["any"], float(start * packet.time_base) + seconds)
                if mine:
                    ends["video"] = max(ends["video"], float(start * packet.time_base) + seconds)
                    decoding = float((start if packet.dts is None else packet.dts) * packet.time_base)
                    step = max(step, seconds, 0.0 if last_start is None else decoding - last_start)
                    last_start = decoding
        except (av.FFmpegError, OSError) as problem:
            error = words(problem)
        announced = stream.frames
        missing, announced_s = _missing(container, stream, ends["video"], ends["any"])
    return PacketIndex(packets, announced, missing, announced_s, step, error)


def _missing(container: InputContainer, stream: VideoStream, video_end: float, any_end: float) -> tuple[float, float]:
    """(seconds missing at the end, seconds announced): of the stream where it says, else of the whole file."""
    if not _STATES_DURATION & set(container.format.name.split(",")):
        return 0.0, 0.0
    own = _stream_seconds(stream)
    if own:
        return max(0.0, own - video_end), own
    whole = (container.duration or 0) / 1e6
    return max(0.0, whole - any_end), whole


def _stream_seconds(stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska: 00:00:01.933000000
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return 0.0


def _choose_stream(path: Path, container: InputContainer) -> tuple[VideoStream, tuple[Note, ...]]:
    """The first stream that the container marks as default, else the first; cover pictures do not count.

    That is the stream that players show. FFmpeg's own choice (highest bit rate) depends on its version.
    """
    from av.stream import Disposition

    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    films = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not films and _lacks_mp4_index(path):
        raise DecodeError(path, _NO_INDEX)
    if not films:
        others = [f"{sum(s.type == kind for s in container.streams)} {kind}" for kind in ("audio", "subtitle", "data")]
        others += ["a cover picture"] if container.streams.video else []
        found = ", ".join(other for other in others if not other.startswith("0 "))
        raise DecodeError(path, f"no video stream (streams found: {found or 'none'})")
    usable = [stream for stream in films if _has_decoder(stream)]
    if not usable:
        raise DecodeError(path, "FFmpeg has no decoder for its video stream")
    chosen = next((stream for stream in usable if stream.disposition & Disposition.default), usable[0])
    if len(films) == 1:
        return chosen, ()
    context = chosen.codec_context
    place = f"stream {chosen.index} of {[s.index for s in films]}, {context.width}x{context.height} {context.name}"
    return chosen, (Note("several video streams, one read", place),)


def _has_decoder(stream: Any) -> bool:
    return stream.codec_context is not None  # None where this FFmpeg lacks the decoder, whatever PyAV's types say


def _require_file(path: Path) -> None:
    if path.is_dir():
        raise DecodeError(path, "a folder, not a video file")
    try:
        if path.stat().st_size == 0:
            raise DecodeError(path, "an empty file (0 bytes)")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise DecodeError(path, "no such file") from None
    except OSError as error:
        raise DecodeError(path, f"cannot be read: {words(error)}") from error


def _why_not_a_video(path: Path, error: Exception) -> str:
    """The cause behind FFmpeg's "invalid data", where the first bytes or the list of boxes give it away."""
    with path.open("rb") as file:
        head = file.read(512)
    size = path.stat().st_size
    if head.isascii() and all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return f"a text file of {size} bytes, not a video"
    if _lacks_mp4_index(path):
        return _NO_INDEX
    return f"not a video that FFmpeg can read ({words(error)})"


def _lacks_mp4_index(path: Path) -> bool:
    """Whether this is an MP4 or QuickTime file in which no complete index follows from the sizes of the boxes."""
    first, place, length = b"", 0, path.stat().st_size
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8:
            size, name = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:  # the size is in the next eight bytes
                size = int.from_bytes(header[8:16], "big")
            first = first or name
            place += size
            if name == b"moov" and place <= length:
                return False
            if size < 8:  # 0 = to the end of the file
                break
            file.seek(place)
    return first in (b"ftyp", b"wide", b"mdat")
