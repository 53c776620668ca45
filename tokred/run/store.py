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
from typing import Any, cast

import numpy as np

from tokred.run.evaluate import Arrays


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
    """The folder ``cells/`` of a run: ``<id>.json`` for people, ``<id>.npz`` with the values of every clip.

    The JSON is written last, so a cell counts as finished only when it is whole. A cell that failed leaves
    ``<id>.failed.json`` with its reason, until it is finished.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "cells"

    def read(self, id_: str) -> tuple[dict[str, Any], Arrays] | None:
        """A finished cell; None when it is missing or cannot be read (it is then computed again)."""
        try:
            record = json.loads((self.folder / f"{id_}.json").read_text())
            with np.load(self.folder / f"{id_}.npz", allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        whole = isinstance(record, dict) and isinstance(record.get("seconds"), (int, float))
        return (record, arrays) if whole else None

    def write(self, id_: str, record: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep a finished cell, its ``record`` with the ``seconds`` that it took; an earlier failure is forgotten."""
        buffer = io.BytesIO()
        np.savez(buffer, **cast("dict[str, Any]", arrays))
        write_atomic(self.folder / f"{id_}.npz", buffer.getvalue())
        write_atomic(self.folder / f"{id_}.json", json.dumps(record, indent=1).encode())
        self._failed(id_).unlink(missing_ok=True)

    def write_failure(self, id_: str, record: Mapping[str, Any]) -> None:
        """Keep why a cell failed: ``reason`` in one line, ``traceback`` in full."""
        write_atomic(self._failed(id_), json.dumps(record, indent=1).encode())

    def failure(self, id_: str) -> dict[str, Any] | None:
        """Why a cell failed when it was tried last; None when it did not."""
        try:
            record = json.loads(self._failed(id_).read_text())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def forget(self, id_: str) -> None:
        """Remove a cell, finished or failed."""
        for path in (self.folder / f"{id_}.json", self.folder / f"{id_}.npz", self._failed(id_)):
            path.unlink(missing_ok=True)

    def _failed(self, id_: str) -> Path:
        return self.folder / f"{id_}.failed.json"
