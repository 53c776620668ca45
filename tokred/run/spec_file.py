"""Files of settings: read as plain values, checked by pydantic, every problem told at once with its path."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000
"""A file with more than this, aliases written out, is refused: a few lines of YAML can stand for billions."""

LONGEST = 80
"""Characters of a value that a message repeats."""

Location = tuple[int | str, ...]


class SpecError(ValueError):
    """A file that cannot be run; ``problems`` holds everything that is wrong, one line each."""

    def __init__(self, origin: str, problems: Sequence[str]) -> None:
        self.origin, self.problems = origin, tuple(problems)
        super().__init__("\n".join([f"{origin}: {len(problems)} problem(s)", *(f"  {line}" for line in problems)]))


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: YAML itself would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """The content of a YAML file as nested mappings, lists and scalars.

    Raises:
        SpecError: it cannot be read, is no YAML, repeats a key, or is far too large once its aliases are written out.
    """
    try:
        file = Path(path)
        if file.stat().st_size > MAX_BYTES:
            raise SpecError(str(path), [f"{file.stat().st_size} bytes; allowed are {MAX_BYTES}"])
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), [f"cannot be read: {' '.join(str(error).split())}"]) from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """``read_yaml`` for a text."""
    loader = _Loader(text)
    try:
        content = loader.get_single_data()
        _expand(content, [MAX_VALUES])
    except yaml.YAMLError as error:
        raise SpecError(origin, [f"cannot be read as YAML: {' '.join(str(error).split())}"]) from error
    except (RecursionError, ValueError, OverflowError) as error:
        raise SpecError(origin, [f"cannot be read as YAML: {error}"]) from error
    finally:
        loader.dispose()
    return content


def as_yaml(content: Mapping[str, Any], origin: str) -> Any:
    """``read_yaml`` for settings that were made in Python: written as YAML and read again, so that nothing gets in
    that a file could not hold. Tuples become lists.

    Raises:
        SpecError: something in it is no plain value.
    """
    try:
        text = yaml.safe_dump(dict(content), sort_keys=False)
    except yaml.representer.RepresenterError as error:
        given = error.args[-1]
        allowed = "mappings, lists, strings, numbers, true, false and null"
        raise SpecError(origin, [f"{given!r} is a {type(given).__name__}; allowed are {allowed}"]) from error
    except RecursionError as error:
        raise SpecError(origin, ["nested too deeply to be written as YAML"]) from error
    return parse_yaml(text, origin)


def _expand(value: Any, left: list[int]) -> None:
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"more than {MAX_VALUES} values, aliases written out")
    children: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _expand(child, left)


def dotted(location: Location) -> str:
    """``axes[1].reducer.r``: where something is in a file."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def did_you_mean(given: str, allowed: Collection[str]) -> str:
    """What else the word may have been: close matches, else everything that is allowed."""
    close = difflib.get_close_matches(given, list(allowed), n=2)
    return f"did you mean {' or '.join(close)}?" if close else f"allowed: {', '.join(sorted(allowed)) or 'nothing'}"


def explain(
    problem: Any, model: type[BaseModel], *, whole: str, where: Callable[[Location], str] = dotted
) -> tuple[Location, str]:
    """One of pydantic's errors in a line, with close matches for an unknown key.

    Args:
        problem: of ``ValidationError.errors()``; model: what was validated.
        whole: what the file is called where the problem has no place; where: how a place is written.
    Returns:
        The place, without the levels that only pydantic sees, and the line.
    """
    location, owner = _owner(model, problem["loc"])
    named = where(location) or whole
    if problem["type"] == "extra_forbidden":
        return location, f"{named}: unknown key; {did_you_mean(str(location[-1]), owner)}"
    return location, f"{named}: {in_words(problem)}"


def explain_all(
    error: ValidationError, model: type[BaseModel], *, whole: str, where: Callable[[Location], str] = dotted
) -> list[tuple[Location, str]]:
    """Each thing that is wrong once; see ``explain``. A value that fits none of several kinds is one problem, which
    pydantic tells once per kind."""
    found: dict[Location, list[Any]] = {}
    for problem in error.errors():
        found.setdefault(_owner(model, problem["loc"])[0], []).append(problem)
    told = []
    for location, problems in found.items():
        kinds = [KINDS[problem["type"]] for problem in problems if problem["type"] in KINDS]
        if len(problems) > 1 and len(kinds) == len(problems):
            told.append((location, f"{where(location) or whole}: {_of_kind(problems[0]['input'], kinds)}"))
        else:
            told += [explain(problem, model, whole=whole, where=where) for problem in problems]
    return told


LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("above", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("below", "lt"),
}
KINDS = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping (KEY: VALUE)",
    "model_type": "a mapping (KEY: VALUE)",
    "model_attributes_type": "a mapping (KEY: VALUE)",
}


def in_words(problem: Any) -> str:
    """What was given, and what is allowed: one of pydantic's errors without its place.

    Args:
        problem: of ``ValidationError.errors()``.
    """
    kind, given, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "missing":
        return "missing"
    if kind in LIMITS:
        word, key = LIMITS[kind]
        limit = f"{context[key]:g}" if isinstance(context[key], float) else context[key]
        return f"{_shown(given)} is not {word} {limit}"
    if kind in KINDS:
        return _of_kind(given, [KINDS[kind]])
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return f"{_shown(given)} is not known; {did_you_mean(str(given), options or [context['expected']])}"
    if kind in ("too_short", "string_too_short"):
        least = context["min_length"]
        return (
            f"is empty; allowed is at least {least}" if not given else f"has {len(given)}; allowed is at least {least}"
        )
    if kind in ("too_long", "string_too_long"):
        return f"has {len(given)}; allowed is at most {context['max_length']}"
    if kind == "string_pattern_mismatch":
        return f"{_shown(given)} does not match {context['pattern']}"
    text = str(problem["msg"]).removeprefix("Value error, ")
    known = isinstance(given, (dict, BaseModel)) or str(given) in text
    return text if known else f"{text} (given: {_shown(given)})"


def _of_kind(given: Any, kinds: Sequence[str]) -> str:
    allowed = " or ".join(dict.fromkeys(kinds))
    return f"is empty; allowed is {allowed}" if given is None else f"{_shown(given)} is not {allowed}"


def _shown(given: Any) -> str:
    """A value as a message repeats it: as short as a line allows."""
    text = repr(given)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _owner(model: type[BaseModel], location: Location) -> tuple[Location, list[str]]:
    """The place as the file has it (pydantic names the kind of a union as a level of its own), and the fields of the
    part of the recipe that holds its last component."""
    kept: list[int | str] = []
    candidates: list[Any] = [model]
    fields = sorted(model.model_fields)
    for part in location:
        if part == "[key]":  # pydantic's word for what is wrong with a key, and not with its value
            continue
        found: list[Any] = []
        parts = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        tagged = [
            c for c in parts if "kind" in c.model_fields and part in typing.get_args(c.model_fields["kind"].annotation)
        ]
        if len(parts) > 1 and tagged:
            candidates = tagged
            continue
        if len(candidates) > 1 and not parts and part in {_kind(candidate) for candidate in candidates}:
            continue
        fields = sorted({name for c in parts for name in c.model_fields})
        for candidate in candidates:
            if candidate in parts:
                field = next((f for n, f in candidate.model_fields.items() if part in (n, f.alias)), None)
                found += [] if field is None else _flat(field.annotation)
            else:
                arguments = typing.get_args(candidate)
                found += _flat(arguments[-1]) if arguments else []
        kept.append(part)
        candidates = found
    return tuple(kept), fields


def _kind(annotation: Any) -> str:
    """What pydantic calls a member of a union in a place, e.g. ``dict[str,any]``."""
    if typing.get_origin(annotation) is None:
        return str(getattr(annotation, "__name__", annotation))
    return str(annotation).replace("typing.", "").replace(" ", "").lower()


def _flat(annotation: Any) -> list[Any]:
    """The alternatives of an annotation: the members of unions, without what is only annotated."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _flat(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [one for member in typing.get_args(annotation) for one in _flat(member)]
    return [annotation]
