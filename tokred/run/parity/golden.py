"""One file of golden vectors: tensors (safetensors) and settings (JSON). The file is not trusted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

from tokred.run.parity.settings import Malformed, Settings


class Golden:
    """A file of golden vectors that remembers what was read.

    Args:
        path: a safetensors file whose metadata are JSON strings.
    Raises:
        Malformed: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                self._tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError) as error:
            raise Malformed(f"not a readable safetensors file: {one_line(error)}") from error
        self.settings = Settings({name: _parse(name, text) for name, text in metadata.items()}, "metadata")
        self._read: set[str] = set()

    @property
    def kind(self) -> str:
        """What the file calls itself: method and kind, or where it comes from."""
        take = self.settings.take
        words = [take("method", None), take("kind", None)]
        if words == [None, None]:
            words = [take("repo", None), take("fn", None), take("cls", None), take("model", None)]
        return " ".join(str(word) for word in words if word is not None) or "none given"

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Tensor:
        """A tensor by name."""
        if name not in self._tensors:
            raise Malformed(f"there is no tensor {name}")
        self._read.add(name)
        return self._tensors[name]

    def floats(self, name: str, dims: int | None = None) -> Tensor:
        """A tensor of features: float32 or float64, with so many dimensions."""
        tensor = self.tensor(name)
        if tensor.dtype not in (torch.float32, torch.float64):
            raise Malformed(f"{name} is {tensor.dtype}: tolerances are defined for float32 and float64")
        return _of_dims(name, tensor, dims)

    def indices(self, name: str, dims: int | None = None) -> Tensor:
        """A tensor of positions, int64."""
        tensor = self.tensor(name)
        if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
            raise Malformed(f"{name} is {tensor.dtype}, not whole numbers")
        return _of_dims(name, tensor.long(), dims)

    def matching(self, pattern: str) -> list[str]:
        """Names that match a regular expression as a whole, in natural order (step2 before step10)."""
        found = [name for name in self._tensors if re.fullmatch(pattern, name)]
        return sorted(found, key=_natural)

    def numbered(self, pattern: str) -> list[int]:
        """The numbers in the one group of a pattern, rising, each once."""
        return sorted({int(m.group(1)) for name in self._tensors if (m := re.fullmatch(pattern, name))})

    def weights(self, dtype: torch.dtype, prefix: str = "w.") -> dict[str, Tensor]:
        """The state dict under the prefix, floating tensors in the given dtype."""
        names = [name for name in self._tensors if name.startswith(prefix)]
        if not names:
            raise Malformed(f"there are no weights ({prefix}*)")
        return {name[len(prefix) :]: _cast(self.tensor(name), dtype) for name in names}

    def finish(self) -> None:
        """Refuse a file with a tensor or a setting that the replay did not look at.

        Raises:
            Malformed: naming them.
        """
        left = sorted(set(self._tensors) - self._read, key=_natural)
        if left:
            shown = ", ".join(left[:6]) + (f" and {len(left) - 6} more" if len(left) > 6 else "")
            raise Malformed(f"tensors that are not understood: {shown}")
        self.settings.finish()


def one_line(error: BaseException) -> str:
    """The message of an exception on one line."""
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:400]


def _parse(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"metadata {name} is not JSON: {one_line(error)}") from error


def _of_dims(name: str, tensor: Tensor, dims: int | None) -> Tensor:
    if dims is not None and tensor.ndim != dims:
        raise Malformed(f"{name} has shape {tuple(tensor.shape)}: {dims} dimensions were expected")
    return tensor


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
