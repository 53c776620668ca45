"""Videos as a source of clips."""

from __future__ import annotations

import copy
import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from tokred.data.batching import ViewBatches
from tokred.data.container import DecodeError, Note
from tokred.data.decode import read_frames
from tokred.data.lists import Listing
from tokred.data.parts import check_part
from tokred.data.sampling import Sampling
from tokred.data.source import Batch, Failure, LabelSet
from tokred.data.views import Views

SHORT = 12  # hexadecimal digits of a digest
_SHOWN = 5


class VideoSource(ViewBatches):
    """The videos of a listing, decoded, sampled, resized and cropped.

    Every video gives ``sampling.clips * views.crops`` rows, clip by clip, crop by crop, all with the video's index. A
    video that cannot be used is added to ``failures`` and gives no row; the others keep their index. Files are opened
    when their turn comes, one at a time, and decoded once per pass.

    Args:
        listing: the videos and their labels.
        sampling: which frames.
        views: which pixels, and their normalisation.
        name: for reports.
        threads: decoding threads.
    """

    def __init__(self, listing: Listing, sampling: Sampling, views: Views, name: str, *, threads: int = 1) -> None:
        self.listing, self.sampling, self.views, self.name, self.threads = listing, sampling, views, name, threads
        self.label_sets: tuple[LabelSet, ...] = () if listing.label_set is None else (listing.label_set,)
        self.failures: list[Failure] = []
        self.notes: list[str] = list(listing.notes)
        self._failed: set[int] = set()
        self._remarks: dict[str, dict[str, str]] = {}
        self._digest: str | None = None

    @property
    def total(self) -> int:
        return len(self.listing.items)

    def within(self, items: range) -> VideoSource:
        """Only these videos; see ``Divisible``."""
        part = copy.copy(self)
        part.only = check_part(items, self.total)
        part.failures, part.notes, part._failed, part._remarks = [], list(self.listing.notes), set(), {}
        part._digest = None
        return part

    def digest(self) -> str:
        """Short hash of the files' contents, their order and labels, the sampling and the views."""
        if self._digest is None:
            total = hashlib.sha256(repr((self.sampling, self.views)).encode())
            for index in self.items:
                item = self.listing.items[index]
                total.update(f"{file_sha256(item.path)} {item.label}\n".encode())
            self._digest = total.hexdigest()[:SHORT]
        return self._digest

    def item(self, index: int) -> list[Tensor]:
        """The views (3, T, H, W) uint8 of one video; none if it failed, now or before."""
        if index in self._failed:
            return []
        item = self.listing.items[index]
        try:
            found, info = read_frames(
                item.path, self._wanted, lambda picture: self.views.resize(picture), threads=self.threads
            )
            clips = [[found[number] for number in clip] for clip in self.sampling.indices(info.frames)]
        except DecodeError as error:
            self._failed.add(index)
            self.failures.append(Failure(item.name, error.reason))
            return []
        padding = self.sampling.padding(info.frames)
        remarks = info.notes + ((Note("padded with repeated frames", padding),) if padding else ())
        self._remark(item.name, remarks)
        return [view for clip in clips for view in self.views.cut(torch.stack(clip))]

    def _wanted(self, total: int) -> set[int]:
        return {number for clip in self.sampling.indices(total) for number in clip}

    def _batch(self, rows: list[tuple[int, Tensor]]) -> Batch:
        items = [index for index, _ in rows]
        videos = [self.listing.items[index] for index in items]
        labels = {
            label_set.name: torch.tensor([-1 if video.label is None else video.label for video in videos])
            for label_set in self.label_sets
        }
        return Batch(torch.stack([view for _, view in rows]), items, labels, [video.name for video in videos])

    def _remark(self, name: str, remarks: tuple[Note, ...]) -> None:
        """Keep ``notes`` at one line for each kind, however many videos it concerns."""
        for kind, detail in remarks:
            self._remarks.setdefault(kind, {})[name] = detail
        lines = list(self.listing.notes)
        for kind, details in self._remarks.items():
            shown = ", ".join(f"{video} ({detail})" for video, detail in list(details.items())[:_SHOWN])
            more = f", and {len(details) - _SHOWN} more" if len(details) > _SHOWN else ""
            lines.append(f"{kind}: {shown}{more}")
        self.notes[:] = lines


def file_sha256(path: Path) -> str:
    """Hash of a file's contents, or in words why there is none."""
    try:
        state = path.stat()
        return _sha256(path.absolute(), state.st_size, state.st_mtime_ns)
    except OSError as error:
        return f"unreadable: {type(error).__name__}"


@lru_cache(maxsize=1 << 17)
def _sha256(path: Path, size: int, changed: int) -> str:
    """Read once per process: the whole and its parts ask for the same files."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
