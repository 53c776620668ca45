"""Encoded pictures, one after another, in one npz file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokred.data.lists import DataError
from tokred.data.pictures.collection import Pictures

_NEEDED = ("jpeg", "offset", "label", "classes")


def read_packed(file: Path, name: str) -> Pictures:
    """The pictures of an npz file; its arrays are read without pickles.

    Args:
        file: with ``jpeg`` (all files after one another, uint8), ``offset`` (n + 1 places in it), ``label`` (n class
            numbers), ``classes`` (names) and perhaps ``filename`` (n names).
        name: for reports.
    Raises:
        DataError: not such a file; the message is one line.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in (*_NEEDED, "filename") if key in content.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as npz: {' '.join(str(error).split())}") from error
    missing = [key for key in _NEEDED if key not in arrays]
    if missing:
        raise DataError(f"{file} holds no {', '.join(missing)} (needed: {', '.join(_NEEDED)})")
    problem = _problem(arrays)
    if problem:
        raise DataError(f"{file}: {problem}")
    data, offset = arrays["jpeg"], arrays["offset"].astype(np.int64)
    count = len(offset) - 1
    names = arrays.get("filename")
    return Pictures(
        name=name,
        names=[f"{file.name} #{i}" for i in range(count)] if names is None else [str(text) for text in names],
        labels=arrays["label"].astype(np.int64).tolist(),
        classes=tuple(str(text) for text in arrays["classes"]),
        content=lambda index: data[offset[index] : offset[index + 1]].tobytes(),
        notes=(f"packed in {file.name}",),
    )


def _problem(arrays: dict[str, npt.NDArray[Any]]) -> str:
    """What is wrong with the arrays, "" where they belong together."""
    data, offset, label, classes = (arrays[key] for key in _NEEDED)
    if data.dtype != np.uint8 or data.ndim != 1:
        return f"jpeg is {data.dtype} {data.shape}; needed: one row of uint8"
    for key in ("offset", "label"):
        if arrays[key].ndim != 1 or arrays[key].dtype.kind not in "iu":
            return f"{key} is {arrays[key].dtype} {arrays[key].shape}; needed: one row of whole numbers"
    if classes.ndim != 1 or classes.dtype.kind != "U":
        return f"classes is {classes.dtype} {classes.shape}; needed: one row of text"
    if len(offset) < 2 or len(label) != len(offset) - 1:
        return f"{len(offset)} offsets need one label less, there are {len(label)}"
    if len(arrays.get("filename", label)) != len(label):
        return f"{len(arrays['filename'])} file names for {len(label)} pictures"
    steps = offset.astype(np.int64)
    if steps[0] < 0 or steps[-1] > len(data) or (np.diff(steps) < 0).any():
        return f"the offsets do not rise from 0 to at most {len(data)}"
    if label.astype(np.int64).min() < 0 or label.astype(np.int64).max() >= len(classes):
        return f"label {label.max()} has no name: there are {len(classes)} classes"
    return ""
