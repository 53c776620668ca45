"""Names in a sweep's settings that nothing has: backbones, measures, methods and their settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokred.backbones.zoo import UnknownBackbone, backbone_spec
from tokred.registry import get, names_a_class
from tokred.run.grid import reducer_text
from tokred.run.measures import MEASURES
from tokred.run.spec_file import did_you_mean
from tokred.run.sweep_spec import Axis, SweepSpec
from tokred.spec_text import RegistryError, parse_settings, spec_value, split_outside_brackets


def unknown_names(spec: SweepSpec) -> list[str]:
    """Every name that nothing has, in the file's own settings and in all its profiles, with its place.

    Methods that are named by a module or a file are not looked at: their classes are loaded for what is run alone.
    """
    lines = list(_of_base("base", spec.base.model_dump(include=set(spec.base.model_fields_set))))
    for name, profile in spec.profiles.items():
        lines += _of_base(f"profiles.{name}.base", profile.base)
    listed: list[tuple[str, Sequence[Axis | None]]] = [("axes", spec.axes)]
    listed += [(f"profiles.{name}.axes", profile.axes) for name, profile in spec.profiles.items()]
    for where, axes in listed:
        for place, axis in enumerate(axes):
            for key in ("backbone", "reducer"):
                for index, value in enumerate((axis or {}).get(key, ())):
                    lines += _of_value(f"{where}[{place}].{key}[{index}]", key, value)
    return lines


def is_unknown_backbone(name: str) -> bool:
    """Whether no backbone has the name; those of other libraries are not looked at."""
    return any(True for _ in _of_backbone("", name))


def understood(reducer: str) -> str | None:
    """A spec without the settings that its methods do not have; None where more than that is wrong with it."""
    pieces = []
    try:
        for piece in split_outside_brackets(reducer, "+"):
            known = _known(piece)
            if known is None:
                pieces.append(piece)
                continue
            name, settings, allowed = known
            kept = ",".join(f"{key}={spec_value(value)}" for key, value in settings.items() if key in allowed)
            pieces.append(f"{name}:{kept}" if kept else name)
    except RegistryError:
        return None
    return "+".join(pieces)


def _of_base(where: str, base: Mapping[str, Any]) -> Iterator[str]:
    for name in base.get("measures", ()):
        if name not in MEASURES:
            yield f"{where}.measures: {name!r} is no measure; {did_you_mean(name, MEASURES)}"
    for key in ("backbone", "reducer"):
        if key in base:
            yield from _of_value(f"{where}.{key}", key, base[key])


def _of_value(where: str, key: str, value: Any) -> Iterator[str]:
    if isinstance(value, (str, dict)):  # what has the wrong type is told by its kind
        yield from _of_backbone(where, str(value)) if key == "backbone" else _of_reducer(where, reducer_text(value))


def _of_backbone(where: str, name: str) -> Iterator[str]:
    if name.partition("/")[0] in ("timm", "hf"):
        return
    try:
        backbone_spec(name)
    except UnknownBackbone as error:
        # With names that are close the whole list is of no use.
        close, _, _ = str(error).partition("; known: ")
        yield f"{where}: {close if '; close: ' in close else error}"


def _of_reducer(where: str, text: str) -> Iterator[str]:
    for piece in split_outside_brackets(text, "+"):
        try:
            known = _known(piece)
        except RegistryError as error:
            yield f"{where}: {str(error).partition('? known are ')[0]}{'?' if '? known are ' in str(error) else ''}"
            continue
        if known is not None:
            name, settings, allowed = known
            unknown = [key for key in settings if key not in allowed]
            yield from (f"{where}.{key}: {name} has no such setting; {did_you_mean(key, allowed)}" for key in unknown)


def _known(piece: str) -> tuple[str, dict[str, Any], list[str]] | None:
    """Method, settings as written, and the settings that it has; None for a class of a module or a file.

    Raises:
        RegistryError: an unknown method, or settings that cannot be read.
    """
    name, _, rest = piece.strip().partition(":")
    if names_a_class(name, rest):
        return None
    allowed = list(inspect.signature(get(name).__init__).parameters)[1:]
    return name, parse_settings(rest, piece), allowed
