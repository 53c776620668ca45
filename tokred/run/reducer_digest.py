"""What decides a reducer's results besides its settings: what it has learned, and whose source it runs."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FunctionType

from torch import nn

from tokred.backbones.convert.digest import weights_digest
from tokred.reducer import TokenReducer
from tokred.registry import is_own

LIBRARIES = ("torch", "builtins", "abc", "typing")


def reducer_digest(reducer: nn.Module) -> str | None:
    """Digest of a reducer's parameters and of the source of classes that are not tokred's; None where neither is.

    A class of a single file stands for that file, one of a package for all of the package's source. What a single file
    imports from files beside it is not looked at.

    Args:
        reducer: attached, or composed of several.
    """
    parts = []
    if any(True for _ in reducer.parameters()):
        parts.append(weights_digest(reducer))
    parts += source_digests(type(part) for part in reducer.modules() if isinstance(part, TokenReducer))
    return "-".join(parts) or None


def source_digests(kinds: Iterable[type]) -> list[str]:
    """Digests of the source of classes and of what they inherit from, without what is tokred's or a library's."""
    inherited = {base for kind in kinds for base in kind.__mro__ if not _known(base)}
    return [_source_digest(kind) for kind in sorted(inherited, key=lambda kind: kind.__qualname__)]


def _known(kind: type) -> bool:
    """Whether another digest stands for the class already, or tokred's version."""
    return is_own(kind) or kind.__module__.partition(".")[0] in LIBRARIES


@lru_cache(maxsize=64)
def _source_digest(kind: type) -> str:
    module = kind.__module__
    loaded = sys.modules.get(module)
    place = getattr(loaded, "__file__", None)
    if module.startswith("_tokred_file_"):
        return module.rpartition("_")[2]  # named by its content as it was loaded, whatever the file holds now
    root = sys.modules.get(module.partition(".")[0])
    if "." in module and getattr(root, "__path__", None):
        files = sorted(path for folder in root.__path__ for path in Path(folder).rglob("*.py"))  # type: ignore[union-attr]
    elif place is not None and module != "__main__":
        files = [Path(place)]
    else:
        try:
            return _hash(inspect.getsource(kind).encode())  # of a notebook or a script
        except (OSError, TypeError):
            codes = [f.__code__.co_code + repr(f.__code__.co_consts).encode() for f in _functions(kind)]
            return _hash(b"".join(codes))
    return _hash(b"".join(path.read_bytes() for path in files))


def _functions(kind: type) -> list[FunctionType]:
    return [value for _, value in sorted(vars(kind).items()) if isinstance(value, FunctionType)]


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
