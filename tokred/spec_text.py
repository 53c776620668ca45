"""Reducers as text: ``name:key=value,...``, how it is written, split and read."""

from __future__ import annotations

import json
import re
from typing import Any


class RegistryError(ValueError):
    """An unknown, duplicate or unusable method name; one line."""


def split_specs(text: str) -> list[str]:
    """A comma-separated list of specs: a piece ``key=value`` belongs to the spec before it."""
    specs: list[str] = []
    for piece in split_outside_brackets(text, ","):
        continues = re.fullmatch(r"\s*[A-Za-z_]\w*\s*=.*", piece) is not None
        if continues and specs:
            specs[-1] += f"{',' if _has_settings(specs[-1]) else ':'}{piece.strip()}"
        elif piece.strip():
            specs.append(piece.strip())
    return specs


def _has_settings(spec: str) -> bool:
    """Whether the last method of a spec already has settings, so that another follows a comma."""
    return "=" in split_outside_brackets(spec, "+")[-1].partition(":")[2]


def is_path(head: str) -> bool:
    """Whether the part of a spec before the first colon is a module or a file, and a class name follows."""
    return head.endswith(".py") or "." in head or "/" in head


def parse_settings(text: str, spec: str) -> dict[str, Any]:
    """``a=1,b=[2,3],c=true,d=word`` as a dict.

    Raises:
        RegistryError: a piece that is not key=value, or a repeated key.
    """
    settings: dict[str, Any] = {}
    for piece in split_outside_brackets(text, ","):
        if not piece.strip():
            continue
        key, equals, value = piece.partition("=")
        if not equals or not key.strip().isidentifier():
            raise RegistryError(f"{spec!r}: {piece!r} is not key=value")
        if key.strip() in settings:
            raise RegistryError(f"{spec!r}: {key.strip()} is given twice")
        if not value.strip():
            raise RegistryError(f"{spec!r}: {key.strip()} has no value")
        read = _value(value.strip())
        if read == ():
            raise RegistryError(f"{spec!r}: {key.strip()} is an empty list; allowed is at least one entry")
        settings[key.strip()] = read
    return settings


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Split at a one-character separator that is not inside brackets or double quotes."""
    pieces, depth, current, quoted, escaped = [], 0, "", False, False
    for char in text:
        if char == '"' and not escaped:
            quoted = not quoted
        escaped = quoted and char == "\\" and not escaped
        if not quoted:
            depth += (char in "[(") - (char in "])")
        if char == separator and depth == 0 and not quoted:
            pieces.append(current)
            current = ""
        else:
            current += char
    return [*pieces, current]


def _value(text: str) -> Any:
    if text[:1] == '"' == text[-1:]:
        try:
            return json.loads(text)
        except ValueError:
            return text
    if text[:1] in "[(" and text[-1:] in "])":
        return tuple(_value(piece.strip()) for piece in split_outside_brackets(text[1:-1], ",") if piece.strip())
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def spec_value(value: Any) -> str:
    """A setting as it is written in a spec, so that ``build`` reads the same value."""
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(spec_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not _is_plain(value):
        return json.dumps(value)
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    # Short where that is the same number; a plus sign would read as a composition.
    return (short if float(short) == value else repr(value)).replace("e+", "e")


def _is_plain(text: str) -> bool:
    """Whether a text reads as itself in a spec: no number, no word with a meaning, nothing that separates."""
    if text.lower() in ("", "true", "false", "none") or text != text.strip() or set(text) & set(',+=[]()"'):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
