"""From a file to named tensors, without running anything that the file says.

Torch files are pickles: they are read with ``weights_only=True``, with nothing allowed beyond torch's own list but
``argparse.Namespace``, which VideoMAE's training scripts store next to the weights.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokred.backbones.convert.errors import CheckpointError

CONTAINERS = ("model", "module", "state_dict")
"""Entries that hold the weights of a training checkpoint, in the order in which they are looked for."""


@dataclass(frozen=True)
class RawFile:
    """The tensors of a file under the names that the file gives them.

    Args:
        path: the file.
        tensors: name -> tensor, on the CPU.
        container: entry of the file that held the weights ("model", "module", "state_dict"), "" for a plain one.
        metadata: text that a safetensors file carries.
        notes: what was left aside while reading.
    """

    path: str
    tensors: dict[str, Tensor]
    container: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_file(path: str | os.PathLike[str]) -> RawFile:
    """Read a torch or safetensors file, told apart by its first bytes.

    Raises:
        CheckpointError: no such file, a folder, an empty, truncated or foreign file, or a pickle that wants to
            import more than tensors.
    """
    file = Path(path)
    if file.is_dir():
        raise CheckpointError(f"{file}: is a folder, not a checkpoint file (a Hugging Face folder is named hf/{file})")
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file")
    with file.open("rb") as stream:
        start = stream.read(16)
    if not start:
        raise CheckpointError(f"{file}: is empty")
    if _is_safetensors(start):
        return _read_safetensors(file)
    if start.startswith(b"PK\x03\x04") or start[:1] == b"\x80":
        return _read_torch(file)
    raise CheckpointError(f"{file}: is no checkpoint: {_what_else(start)}; torch and safetensors files are read")


def _is_safetensors(start: bytes) -> bool:
    # 8 bytes of header length, then the JSON header; 100 MB is the format's own limit.
    return len(start) > 8 and start[8:9] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] <= 100_000_000


def _what_else(start: bytes) -> str:
    text = start.lstrip().lower()
    if text.startswith((b"<!doc", b"<html", b"<?xml")):
        return "it is a web page (the download gave a page instead of the file)"
    if text.startswith(b"version https:"):
        return "it is a Git LFS pointer (fetch the file itself with git lfs pull)"
    return f"it begins with {start[:8]!r}"


def _read_safetensors(file: Path) -> RawFile:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt", device="cpu") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(stream.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{file}: is truncated or damaged: {_first_line(error)}") from error
    if not tensors:
        raise CheckpointError(f"{file}: holds no tensors")
    return RawFile(path=str(file), tensors=tensors, metadata=metadata)


def _read_torch(file: Path) -> RawFile:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(file, str(error))) from error
    except Exception as error:  # a damaged file makes the unpickler fail in any way
        raise CheckpointError(f"{file}: is truncated or damaged: {_first_line(error)}") from error
    return _unwrap(file, content)


def _refusal(file: Path, message: str) -> str:
    wanted = re.search(r"GLOBAL\s+([\w.]+)", message)
    if wanted is None:
        return f"{file}: is damaged or no torch checkpoint: {_first_line(message)}"
    return (
        f"{file}: refused, because its pickle wants {wanted[1]}, and loading it could run foreign code; to convert it, "
        "load it where you trust it and keep the tensors alone: torch.save(model.state_dict(), 'weights.pth')"
    )


def _unwrap(file: Path, content: Any) -> RawFile:
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds a {type(content).__name__}, not a dict of tensors")
    container = next((key for key in CONTAINERS if isinstance(content.get(key), Mapping)), "")
    entries = content[container] if container else content
    tensors = {str(name): value for name, value in entries.items() if isinstance(value, Tensor)}
    if not tensors:
        keys = ", ".join(str(key) for key in list(entries)[:8]) or "none"
        raise CheckpointError(f"{file}: holds no tensors under {', '.join(CONTAINERS)} or at the top; keys: {keys}")
    aside = [str(name) for name in entries if str(name) not in tensors]
    notes = (f"not tensors, left aside: {', '.join(aside)}",) if aside else ()
    return RawFile(path=str(file), tensors=tensors, container=container, notes=notes)


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
