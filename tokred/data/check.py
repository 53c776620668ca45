"""What is in a data set, before an evaluation is run on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tokred.data.container import DecodeError
from tokred.data.decode import probe
from tokred.data.lists import Listing
from tokred.data.source import Failure

# Classes -> what that number of classes suggests, and the sizes of its validation set that are in use; videos that
# were taken down make Kinetics differ from copy to copy, which moves the accuracy.
KNOWN_SIZES = {
    400: ("Kinetics-400 validation", 19_796, 19_881),
    174: ("Something-Something v2 validation", 24_777, 24_777),
}


@dataclass(frozen=True)
class DataReport:
    """The findings of `check_data`.

    Args:
        items: videos listed.
        usable: videos that decode from the first to the last frame.
        frames: (fewest, most) frames of a usable video; (0, 0) without one.
        failures: the other videos, with reasons.
        classes: number of classes, 0 without labels.
        labels: (lowest, highest) class number in use, or None without labels.
        per_class: (fewest, most) videos of a class, or None without labels.
        unused: names of classes without a video.
        list_sha256: of the sorted lines "name label", whatever order they were listed in.
        notes: of the listing and of single videos.
    """

    items: int
    usable: int
    frames: tuple[int, int]
    failures: tuple[Failure, ...]
    classes: int
    labels: tuple[int, int] | None
    per_class: tuple[int, int] | None
    unused: tuple[str, ...]
    list_sha256: str
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every listed video can be used."""
        return self.usable == self.items


def list_sha256(listing: Listing) -> str:
    """Hash of the sorted lines "name label": the same for the same videos and labels in any order."""
    lines = sorted(f"{item.name} {'' if item.label is None else item.label}".rstrip() for item in listing.items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def check_data(listing: Listing, *, threads: int = 1, progress: Callable[[int, int], None] | None = None) -> DataReport:
    """Decode every video of a listing completely and count its classes.

    Args:
        listing: from `find_videos`.
        threads: decoding threads.
        progress: called with (videos done, videos in all) after each video.
    """
    failures: list[Failure] = []
    lengths: list[int] = []
    notes = list(listing.notes)
    for done, item in enumerate(listing.items, start=1):
        try:
            info = probe(item.path, threads=threads)
            lengths.append(info.frames)
            notes += [f"{item.name}: {note.kind} ({note.detail})" for note in info.notes]
        except DecodeError as error:
            failures.append(Failure(item.name, error.reason))
        if progress is not None:
            progress(done, len(listing.items))
    repeated = [name for name, count in Counter(item.name for item in listing.items).items() if count > 1]
    if repeated:
        notes.append(f"{len(repeated)} videos are listed more than once, {repeated[0]} first")
    names = () if listing.label_set is None else listing.label_set.classes
    counts = Counter(item.label for item in listing.items if item.label is not None)
    if len(names) in KNOWN_SIZES:
        known, low, high = KNOWN_SIZES[len(names)]
        if not low <= len(listing.items) <= high:
            notes.append(f"{len(names)} classes, but {known} has {low} to {high} videos, not {len(listing.items)}")
    return DataReport(
        items=len(listing.items),
        usable=len(lengths),
        frames=(min(lengths, default=0), max(lengths, default=0)),
        failures=tuple(failures),
        classes=len(names),
        labels=(min(counts), max(counts)) if counts else None,
        per_class=(min(counts.values()), max(counts.values())) if counts else None,
        unused=tuple(name for number, name in enumerate(names) if number not in counts),
        list_sha256=list_sha256(listing),
        notes=tuple(notes),
    )
