"""Settings of a golden file, read one by one: what is not understood is refused, never skipped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_MISSING = object()

_TOLD = re.compile(
    r"keys$|note|seed|margin|detects|float(32|64)|maxdiff|_change_|^logits_|undetected|noise|count|units?$|source$|repo$|"
    r"version|torch|threads|generator|commit|license|date$|kind$|method$|official|checked|tolerance|description"
)
"""Names of metadata that tell about a file (how it was made, its margins) and set nothing."""


class Malformed(ValueError):
    """A golden file that cannot be replayed: unreadable, contradictory, or with a setting that is not understood."""


class Settings:
    """A mapping of settings that remembers which were read.

    Args:
        values: the settings, from JSON.
        where: what to call them in messages, e.g. "config".
    """

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, Mapping):
            raise Malformed(f"{where} is {_short(values)}, not a mapping")
        self._values: dict[str, Any] = dict(values)
        self._read: set[str] = set()
        self.where = where

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def take(self, name: str, default: Any = _MISSING) -> Any:
        """The setting, or the default where it is absent.

        Raises:
            Malformed: it is absent and there is no default.
        """
        self._read.add(name)
        if name in self._values:
            return self._values[name]
        if default is _MISSING:
            raise Malformed(f"{self.where} has no {name}")
        return default

    def whole(self, name: str, default: Any = _MISSING, least: int = 0) -> int:
        """A whole number of at least ``least``."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise Malformed(f"{self.where}.{name} = {_short(value)} is not a whole number of at least {least}")
        return value

    def number(self, name: str, default: Any = _MISSING) -> float:
        """A finite number."""
        value = self.take(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise Malformed(f"{self.where}.{name} = {_short(value)} is not a finite number")
        return value

    def flag(self, name: str, default: Any = _MISSING) -> bool:
        """True or false."""
        value = self.take(name, default)
        if not isinstance(value, bool):
            raise Malformed(f"{self.where}.{name} = {_short(value)} is not true or false")
        return value

    def choice(self, name: str, allowed: tuple[str, ...], default: Any = _MISSING) -> str:
        """One of the allowed words."""
        value = self.take(name, default)
        if value not in allowed:
            raise Malformed(f"{self.where}.{name} = {_short(value)} is not one of {', '.join(allowed)}")
        return str(value)

    def items(self, name: str, default: Any = _MISSING) -> list[Any]:
        """A list."""
        value = self.take(name, default)
        if not isinstance(value, list):
            raise Malformed(f"{self.where}.{name} = {_short(value)} is not a list")
        return value

    def inner(self, name: str, default: Any = _MISSING) -> Settings:
        """A mapping inside this one."""
        return Settings(self.take(name, default), f"{self.where}.{name}" if self.where != "metadata" else name)

    def agree(self, name: str, value: object, what: str = "the tensors") -> None:
        """Where the setting is given, it must be what the tensors say.

        Raises:
            Malformed: both disagree.
        """
        given = self.take(name, value)
        if given != value:
            raise Malformed(f"{self.where}.{name} = {_short(given)}, but {what} say {_short(value)}")

    def agree_pair(self, name: str, pair: tuple[int, int]) -> None:
        """As ``agree`` for a size given as one number (a square) or two."""
        given = self.take(name, list(pair))
        if (given if isinstance(given, list) else [given, given]) != list(pair):
            raise Malformed(f"{self.where}.{name} = {_short(given)}, but the tensors say {pair[0]} x {pair[1]}")

    def without_effect(self, *names: str) -> None:
        """Mark settings that do nothing in a forward in eval mode, such as dropout rates."""
        self._read.update(names)

    def finish(self) -> None:
        """Refuse what was neither read nor merely tells about the file.

        Raises:
            Malformed: naming the settings.
        """
        strange = sorted(name for name in self._values if name not in self._read and not _TOLD.search(name))
        if strange:
            shown = ", ".join(f"{name} = {_short(self._values[name])}" for name in strange)
            raise Malformed(f"{self.where} has settings that are not understood: {shown}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
