"""Finished cells on disk: written once, under a temporary name, then renamed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokred.run.evaluate import Predictions


def cell_id(content: Mapping[str, Any]) -> str:
    """Hash of everything that a cell's predictions depend on."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, a kill or a full disk never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class CellStore:
    """The folder ``cells/`` of a run: ``<id>.json`` for people, ``<id>.npz`` with the predictions.

    The JSON is written last, so a cell counts as finished only when it is whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cells"

    def read(self, id_: str) -> tuple[dict[str, Any], Predictions] | None:
        """A finished cell; None when it is missing or cannot be read (it is then computed again)."""
        try:
            record = json.loads((self.folder / f"{id_}.json").read_text())
            with np.load(self.folder / f"{id_}.npz", allow_pickle=False) as arrays:
                labels = {k[len("labels.") :]: arrays[k] for k in arrays.files if k.startswith("labels.")}
                found = Predictions(arrays["logits"], arrays["features"], arrays["items"], labels)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return record, found

    def write(self, id_: str, record: Mapping[str, Any], predictions: Predictions) -> None:
        """Keep a finished cell."""
        buffer = io.BytesIO()
        labels: dict[str, Any] = {f"labels.{name}": values for name, values in predictions.labels.items()}
        np.savez(buffer, logits=predictions.logits, features=predictions.features, items=predictions.items, **labels)
        write_atomic(self.folder / f"{id_}.npz", buffer.getvalue())
        write_atomic(self.folder / f"{id_}.json", json.dumps(record, indent=1).encode())
