"""The Python version of CIFAR-10 without trusting it: a pickle that may build arrays, and nothing else."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from tokred.data.lists import DataError


def read_batch(data: bytes, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pixels (n, 3072) and labels (n,) of a batch file such as ``data_batch_1``.

    Raises:
        DataError: the pickle wants anything but numbers, bytes, lists, dicts and plain arrays, or is damaged.
    """
    try:
        content = _Plain(io.BytesIO(data), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:  # a damaged pickle makes the unpickler fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{name} is truncated or no batch of CIFAR-10: {reason}") from error
    entries = {_text(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    pixels, labels = entries.get("data"), entries.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise DataError(f"{name} is no batch of CIFAR-10: it holds no two-dimensional array 'data' of bytes")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise DataError(f"{name} is no batch of CIFAR-10: it holds no list 'labels' of whole numbers")
    return pixels, np.array(labels, dtype=np.int64)


class _Plain(pickle.Unpickler):
    """Knows three names, those that a pickled array of numbers needs; stands in for them itself."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return _empty
        if module == "numpy" and name == "ndarray":
            return np.ndarray
        if module == "numpy" and name == "dtype":
            return _dtype
        if module == "_codecs" and name == "encode":
            return _latin
        raise DataError(
            f"refused, because its pickle wants {module}.{name}, and loading it could run foreign code; "
            "the binary version (cifar-10-binary.tar.gz) holds no pickles"
        )


def _empty(*_: Any) -> npt.NDArray[Any]:
    """An array whose shape and content follow; the size in the file is not believed before."""
    return np.ndarray((0,), dtype=np.uint8)


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    if _text(code) not in ("u1", "|u1", "B"):
        raise DataError(f"refused, because it holds an array of {_text(code)!r}; only bytes (u1) are expected")
    return np.dtype("u1")


def _latin(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise DataError("refused, because it wants another encoding than latin1")
    return text.encode("latin1")


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
