"""Read a sweep from a file: changes from the command line, and every problem at once with its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokred.run.grid import KNOB, SEED
from tokred.run.spec_file import Location, SpecError, did_you_mean, dotted, explain_all, read_yaml
from tokred.run.sweep_names import unknown_names
from tokred.run.sweep_places import of_points
from tokred.run.sweep_repair import repaired
from tokred.run.sweep_set import apply_sets
from tokred.run.sweep_spec import VARIED, BaseSpec, SweepSpec

ORIGIN = "sweep"


@dataclass(frozen=True)
class Draft:
    """A file as far as it can be understood: ``spec`` without the parts that ``problems`` are about, None where too
    little is left."""

    origin: str
    spec: SweepSpec | None
    problems: tuple[str, ...]


def load_sweep(path: str | Path, sets: Sequence[str] = (), profile: str | None = None) -> SweepSpec:
    """A checked sweep from a YAML file.

    Args:
        sets: changes, ``KEY=VALUE`` with YAML values, see ``apply_sets``; profile: whose settings they change.
    Raises:
        SpecError: everything that is wrong.
    """
    return checked(draft_sweep(read_yaml(path), str(path), sets, profile))


def parse_sweep(content: Any, origin: str = ORIGIN, sets: Sequence[str] = (), profile: str | None = None) -> SweepSpec:
    """``load_sweep`` from plain values."""
    return checked(draft_sweep(content, origin, sets, profile))


def checked(draft: Draft) -> SweepSpec:
    """The sweep of a draft without problems.

    Raises:
        SpecError: it has some.
    """
    if draft.problems or draft.spec is None:
        raise SpecError(draft.origin, draft.problems)
    return draft.spec


def draft_sweep(content: Any, origin: str = ORIGIN, sets: Sequence[str] = (), profile: str | None = None) -> Draft:
    """A sweep with all that is wrong with it, as far as that shows without a backbone."""
    if content is None or content == {}:
        return Draft(origin, None, ("is empty; a sweep has at least `name: NAME`",))
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else f"{content!r}"[:80]
        return Draft(origin, None, (f"must be a mapping of settings (KEY: VALUE), is {kind}",))
    content, problems = apply_sets(content, sets, profile)
    found: list[tuple[Location, str]] = [*_of_axes(content), *_of_profiles(content), *_of_seeds(content)]
    spec = None
    try:
        spec = SweepSpec.model_validate(content)
    except ValidationError as error:
        found += explain_all(error, SweepSpec, whole=origin)
    if spec is None or found:
        spec = repaired(content, [location for location, _ in found])
    lines = [line for _, line in found] + unknown_names(spec)
    more, spec = of_points(spec, _keys_of(content), changed=bool(sets) or bool(found))
    return Draft(origin, spec, tuple(dict.fromkeys([*problems, *lines, *more])))


def _of_seeds(content: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    profiles = content.get("profiles")
    parts: list[tuple[Location, Any]] = [((), content)]
    parts += [(("profiles", name), part) for name, part in (profiles.items() if isinstance(profiles, dict) else ())]
    for where, part in parts:
        seeds = part.get("seeds") if isinstance(part, dict) else None
        for index, seed in enumerate(seeds if isinstance(seeds, list) else ()):
            if seed in (seeds or ())[:index]:
                here = (*where, "seeds", index)
                yield here, f"{dotted(here)}: {seed!r} is given twice"


def _of_profiles(content: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """Settings of the profiles' bases, which are kept as they are until they are merged."""
    profiles = content.get("profiles")
    for name, profile in profiles.items() if isinstance(profiles, dict) else ():
        base = profile.get("base") if isinstance(profile, dict) else None
        if isinstance(base, dict):
            try:
                BaseSpec.model_validate(base)
            except ValidationError as error:
                where: Location = ("profiles", str(name), "base")
                for location, line in explain_all(error, BaseSpec, whole=dotted(where)):
                    yield (*where, *location), f"{dotted(where)}.{line}"


def _keys_of(content: Mapping[str, Any]) -> set[str]:
    """All that stands as a key of an axis, right or wrong: what follows from a wrong one is not told as well."""
    profiles = content.get("profiles")
    parts = [content, *(profiles.values() if isinstance(profiles, dict) else ())]
    axes = [part.get("axes") for part in parts if isinstance(part, dict)]
    return {
        str(key)
        for listed in axes
        if isinstance(listed, list)
        for axis in listed
        if isinstance(axis, dict)
        for key in axis
    }


def _of_axes(content: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """What pydantic does not see of axes; what has the wrong type is left to it."""
    yield from _of_list(("axes",), content.get("axes"))
    profiles = content.get("profiles")
    for name, profile in profiles.items() if isinstance(profiles, dict) else ():
        if isinstance(profile, dict):
            yield from _of_list(("profiles", name, "axes"), profile.get("axes"))


def _of_list(where: Location, axes: Any) -> Iterator[tuple[Location, str]]:
    seen: dict[str, Location] = {}
    for place, axis in enumerate(axes if isinstance(axes, list) else ()):
        if not isinstance(axis, dict):
            continue
        at = (*where, place)
        for key, values in axis.items():
            here = (*at, key)
            problem = _of_key(key)
            if problem:
                yield here, f"{dotted(here)}: {problem}"
            elif key in seen:
                yield here, f"{dotted(here)}: {dotted(seen[key])} varies it already"
            elif isinstance(values, list):
                yield from _of_values(here, key, values)
            seen.setdefault(key, here)
        lengths = {key: len(values) for key, values in axis.items() if isinstance(values, list)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            shortest = min(lengths.values())
            longer = [key for key, count in lengths.items() if count > shortest]
            yield (*at, longer[0]), f"{dotted(at)}: keys of one axis move together and need as many values each; {told}"
        elif len(lengths) == 1 and where == ("axes",):  # a profile may have one value for several of another
            key, values = next(iter(axis.items()))
            for index, value in enumerate(values if isinstance(values, list) else ()):
                if value in values[:index]:
                    here = (*at, key, index)
                    yield here, f"{dotted(here)}: {value!r} is given twice"


def _of_key(key: Any) -> str | None:
    if key in VARIED or (isinstance(key, str) and key.startswith(KNOB) and key.removeprefix(KNOB).isidentifier()):
        return None
    if key in (SEED, "seeds"):
        return "seeds have a list of their own: seeds: [0, 1]"
    allowed = did_you_mean(str(key), [*VARIED, "reducer.KNOB"])
    return f"nothing that can be varied; {allowed}"


def _of_values(where: Location, key: str, values: list[Any]) -> Iterator[tuple[Location, str]]:
    if not values:
        yield where, f"{dotted(where)}: no value is given"
    if key.startswith(KNOB):
        return
    for index, value in enumerate(values):
        here = (*where, index)
        try:
            BaseSpec.model_validate({key: value})
        except ValidationError as error:
            for location, line in explain_all(error, BaseSpec, whole=key):
                place = (*here, *location[1:])
                yield here, f"{dotted(place)}{line.removeprefix(dotted(location))}"
