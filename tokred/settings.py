"""Check the settings of a reducer against the types that its constructor declares.

A setting may come from a command line or a file, where ``fuse=no`` is a word: taken as it is, it would be true.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from typing import Any


class SettingError(ValueError):
    """A setting of the wrong kind: its name, what was given, what is allowed."""


def check_settings(constructor: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Compare each setting with the constructor's annotation; what is not annotated is not checked.

    Raises:
        SettingError: a value of another kind. A whole number is allowed where a number is, a list where a tuple is;
            true and false are not numbers.
    """
    try:
        hints = typing.get_type_hints(constructor)
    except (NameError, TypeError):
        # Annotations that cannot be read where they were written (names known to type checkers only).
        return
    for name, value in settings.items():
        if name in hints and not _fits(value, hints[name]):
            raise SettingError(f"{name} = {value!r} is not {_words(hints[name])}")


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "none"}


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(one, inner[0]) for one in value)
        return len(value) == len(inner) and all(map(_fits, value, inner))
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value  # NaN is no number
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str, type(None)):
        return isinstance(value, hint)
    # Anything else is the author's own to check.
    return True


def _words(hint: Any) -> str:
    origin = typing.get_origin(hint)
    inner = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(one) for one in inner)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin is tuple:
        return f"a list of {_words(inner[0]).removeprefix('a ')}s" if inner else "a list"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
