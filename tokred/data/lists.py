"""Finding videos and their labels: a folder, a folder of class folders, or a list of `path label` lines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokred.data.source import LabelSet

_SUFFIXES = "3gp asf avi flv gif m2ts m2v m4v mjpeg mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
VIDEO_SUFFIXES = frozenset("." + name for name in _SUFFIXES.split())
LIST_SUFFIXES = frozenset((".txt", ".csv", ".tsv", ".list"))
LABEL_SET = "label"
MAX_CLASSES = 100_000
_SHOWN = 8


class DataError(ValueError):
    """A data set that cannot be used at all, as opposed to single videos in it; the message is one line."""


@dataclass(frozen=True)
class Item:
    """One video of a data set.

    Args:
        path: the file.
        name: how reports call it: its path inside the folder or list.
        label: class number, or None without labels.
    """

    path: Path
    name: str
    label: int | None = None


@dataclass(frozen=True)
class Listing:
    """The videos of a data set, in a fixed order.

    Args:
        items: the videos; they need not be readable, nor exist.
        label_set: the classes, or None without labels.
        notes: how the labels were found, what was left out.
    """

    items: tuple[Item, ...]
    label_set: LabelSet | None
    notes: tuple[str, ...] = ()


def scan_folder(folder: Path) -> Listing:
    """All videos under a folder, by suffix, sorted by path; hidden files and folders are left out.

    The folders of the first level are the classes, numbered in sorted order, when there are at least two and every
    video lies directly in one of them. Otherwise there are no labels, and a note says why.

    Raises:
        DataError: no video in it.
    """
    found = sorted(walk(folder), key=lambda path: path.relative_to(folder).parts)
    videos = [path for path in found if path.suffix.lower() in VIDEO_SUFFIXES]
    others = Counter(path.suffix.lower() or "no suffix" for path in found if path.suffix.lower() not in VIDEO_SUFFIXES)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not videos:
        raise DataError(f"no video in the folder {folder} (found: {kinds or 'nothing'})")
    notes = [f"not videos by their suffix, left out: {kinds}"] if kinds else []
    places = [path.relative_to(folder).parts for path in videos]
    classes = sorted({parts[0] for parts in places if len(parts) > 1})
    stray = next((parts for parts in places if len(parts) != 2), None)
    if stray is not None or len(classes) < 2:
        if classes:
            reason = "is the only class folder" if stray is None else "is not directly in a class folder"
            notes.append(f"no labels: {'/'.join(stray or classes)} {reason}")
        return Listing(tuple(Item(p, "/".join(parts)) for p, parts in zip(videos, places)), None, tuple(notes))
    notes.append(f"labels are the {len(classes)} folders in sorted order")
    items = tuple(Item(p, "/".join(parts), classes.index(parts[0])) for p, parts in zip(videos, places))
    return Listing(items, LabelSet(LABEL_SET, tuple(classes)), tuple(notes))


def walk(folder: Path) -> Iterator[Path]:
    """All files under a folder, hidden files and folders left out."""
    seen: set[str] = set()  # links to folders are followed, each folder once
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith("."))
        if real not in seen:
            yield from (Path(place, name) for name in files if not name.startswith("."))
        seen.add(real)


def read_list(path: Path, *, root: Path | None = None, classes: Sequence[str] | None = None) -> Listing:
    """A text file with a video and its label on each line: `path label`, without a header.

    Path and label are separated by a tab, a comma or spaces; the last one counts, so paths may hold spaces. Where a
    line can be read in several ways, the one whose file exists is taken. A label is a class number from 0 or a class
    name, the same throughout; names are numbered in sorted order unless ``classes`` gives the order.

    Args:
        path: the list.
        root: folder that relative paths start from; the list's own folder by default.
        classes: class names in the order of their numbers.

    Raises:
        DataError: unreadable, empty, lines that are no `path label` (all of them named), or no file exists.
    """
    root = path.parent if root is None else root
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the list {path} cannot be read: {error}") from error
    entries: list[tuple[int, str, str]] = []
    problems: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        readings = list(_readings(line))
        if readings:
            existing = [reading for reading in readings if (root / reading[0]).is_file()]
            numbered = [reading for reading in readings if _is_number(reading[1])]
            entries.append((number, *(existing or numbered or readings)[0]))
        else:
            problems.append(f"line {number}: no label in {line.strip()!r}")
    if not entries and not problems:
        raise DataError(f"the list {path} is empty")
    labels, names, labelling = _number_labels(entries, classes, problems)
    if problems:
        shown = problems[:_SHOWN] + ([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
        lines_wrong = "1 wrong line" if len(problems) == 1 else f"{len(problems)} wrong lines"
        raise DataError(f"the list {path} has {lines_wrong}: {'; '.join(shown)}")
    items = tuple(Item(root / entry[1], entry[1], label) for entry, label in zip(entries, labels))
    if not any(item.path.exists() for item in items):
        raise DataError(f"none of the {len(items)} files of the list {path} exists; the first is {items[0].path}")
    return Listing(items, LabelSet(LABEL_SET, names), (labelling,))


def thinned(listing: Listing, count: int | None) -> Listing:
    """At most ``count`` videos of a listing, evenly spaced over it (so over its classes too), with a note."""
    total = len(listing.items)
    if count is None or count >= total:
        return listing
    if count < 1:
        raise DataError(f"clips = {count} must be at least 1")
    items = tuple(listing.items[place * total // count] for place in range(count))
    return Listing(items, listing.label_set, (*listing.notes, f"{count} of {total} videos, evenly spaced"))


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdigit()


def _readings(line: str) -> Iterator[tuple[str, str]]:
    """(path, label) by tab, comma and space, as far as both are there."""
    for separator in ("\t", ",", None):
        parts = line.strip().rsplit(separator, 1)
        if len(parts) == 2:
            path, label = (part.strip().strip('"') for part in parts)
            if path and label:
                yield path, label


def _number_labels(
    entries: list[tuple[int, str, str]], classes: Sequence[str] | None, problems: list[str]
) -> tuple[list[int], tuple[str, ...], str]:
    """Class number of each entry, class names, and a note; wrong labels are added to ``problems``."""
    if classes is not None:
        return _given(entries, classes, problems), tuple(classes), f"{len(classes)} given classes"
    if not any(_is_number(label) for _, _, label in entries):
        names = tuple(sorted({label for _, _, label in entries}))
        numbers = {name: number for number, name in enumerate(names)}
        note = f"labels are {len(names)} class names, numbered in sorted order"
        return [numbers[label] for _, _, label in entries], names, note
    labels = []
    for line, _, label in entries:
        number = int(label) if _is_number(label) else None
        if number is None:
            problems.append(f"line {line}: label {label!r} is not a class number from 0, as others are")
        elif number >= MAX_CLASSES:
            problems.append(f"line {line}: label {label} is too large, the limit is {MAX_CLASSES - 1}")
        else:
            labels.append(number)
    count = max(labels, default=0) + 1
    return labels, tuple(str(number) for number in range(count)), f"labels are class numbers up to {count - 1}"


def _given(entries: list[tuple[int, str, str]], classes: Sequence[str], problems: list[str]) -> list[int]:
    known = {name: number for number, name in enumerate(classes)}
    if len(known) != len(classes):
        raise DataError(f"the {len(classes)} given class names are not all different")
    known.update({str(number): number for number in range(len(classes)) if str(number) not in known})
    for line, _, label in entries:
        if label not in known:
            problems.append(f"line {line}: label {label!r} is not one of the {len(classes)} classes")
    return [known[label] for _, _, label in entries if label in known]
