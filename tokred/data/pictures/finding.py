"""From a path to pictures: a folder of class folders, or a packed file."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokred.data.lists import DataError, walk
from tokred.data.pictures.collection import PictureError, Pictures
from tokred.data.pictures.packed import read_packed

_SUFFIXES = "bmp gif jfif jpeg jpg pgm png ppm tif tiff webp"
PICTURE_SUFFIXES = frozenset("." + name for name in _SUFFIXES.split())
SPLITS = {"train": ("train",), "test": ("test", "val", "validation")}


def find_pictures(path: Path, split: str = "test") -> Pictures:
    """The pictures of a folder or packed file, without decoding any.

    A folder that holds a folder, or an npz file, named after the split ("test", "val", "validation"; "train") stands
    for that.

    Raises:
        DataError: missing, no picture in it, or neither a folder nor an npz file.
    """
    if split not in SPLITS:
        raise DataError(f"split = {split!r} is not one of {', '.join(SPLITS)}")
    if path.is_dir():
        for name in SPLITS[split]:
            if (path / name).is_dir():
                return read_folder(path / name)
            if (path / f"{name}.npz").is_file():
                return read_packed(path / f"{name}.npz", path.name)
        other = next((n for names in SPLITS.values() for n in names if (path / f"{n}.npz").is_file()), None)
        if other is not None:
            raise DataError(f"{path} holds {other}.npz, but nothing for split={split}")
        return read_folder(path)
    if not path.exists():
        raise DataError(f"no such file or folder: {path}{close_by(path)}")
    if path.suffix.lower() == ".npz":
        return read_packed(path, path.stem)
    raise DataError(f"unknown kind of file: {path} (allowed: a folder of pictures, an npz file)")


def read_folder(folder: Path) -> Pictures:
    """All pictures under a folder, by suffix, sorted by path; hidden ones are left out.

    The folders of the first level are the classes, numbered in sorted order, when there are at least two and every
    picture lies directly in one of them. Otherwise there are no labels, and a note says why.
    """
    found = sorted(walk(folder), key=lambda file: file.relative_to(folder).parts)
    files = [file for file in found if file.suffix.lower() in PICTURE_SUFFIXES]
    others = Counter(
        file.suffix.lower() or "no suffix" for file in found if file.suffix.lower() not in PICTURE_SUFFIXES
    )
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if not files:
        raise DataError(f"no picture in the folder {folder} (found: {kinds or 'nothing'})")
    notes = [f"not pictures by their suffix, left out: {kinds}"] if kinds else []
    places = [file.relative_to(folder).parts for file in files]
    classes = tuple(sorted({parts[0] for parts in places if len(parts) > 1}))
    stray = next((parts for parts in places if len(parts) != 2), None)
    labelled = stray is None and len(classes) > 1
    if labelled:
        notes.append(f"labels are the {len(classes)} folders in sorted order")
    elif classes:
        reason = "is the only class folder" if stray is None else "is not directly in a class folder"
        notes.append(f"no labels: {'/'.join(stray or classes)} {reason}")
    return Pictures(
        name=folder.name,
        names=["/".join(parts) for parts in places],
        labels=[classes.index(parts[0]) for parts in places] if labelled else (),
        classes=classes if labelled else (),
        content=lambda index: _bytes(files[index]),
        notes=tuple(notes),
    )


def close_by(path: Path, words: Sequence[str] = ()) -> str:
    """ "; close: ..." with what lies beside a path that does not exist, or such words; "" where nothing is like it."""
    try:
        beside = {entry.name: str(path.parent / entry.name) for entry in path.parent.iterdir()}
    except OSError:
        beside = {}
    if len(path.parts) == 1:
        beside |= {word: word for word in words}
    close = difflib.get_close_matches(path.name, list(beside), n=2)
    return f"; close: {', '.join(beside[name] for name in close)}" if close else ""


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror or error}") from error
