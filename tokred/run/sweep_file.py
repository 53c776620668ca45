"""Read a sweep from a file: changes from the command line, and every problem at once with its path."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tokred.backbones.zoo import UnknownBackbone, backbone_spec
from tokred.registry import RegistryError
from tokred.run.grid import KNOB, SEED, expand, matches
from tokred.run.measures import MEASURES
from tokred.run.spec_file import Location, SpecError, did_you_mean, dotted, explain, read_yaml
from tokred.run.sweep_set import apply_sets
from tokred.run.sweep_spec import VARIED, Axis, BaseSpec, SweepSpec

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
    if not isinstance(content, dict):
        return Draft(origin, None, (f"must be a mapping of settings, is {type(content).__name__}",))
    content, problems = apply_sets(content, sets, profile)
    found: list[tuple[Location, str]] = list(_of_axes(content))
    spec = None
    try:
        spec = SweepSpec.model_validate(content)
    except ValidationError as error:
        found += [explain(problem, SweepSpec, whole=origin) for problem in error.errors()]
    repaired = _without(content, [location for location, _ in found])
    if spec is None or found:
        try:
            spec = SweepSpec.model_validate(repaired)
        except ValidationError:
            spec = None
    lines = [line for _, line in found]
    if spec is not None:
        lines += _of_base(spec) + _of_points(spec, changed=bool(sets) or bool(found))
    return Draft(origin, spec, (*problems, *dict.fromkeys(lines)))


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
            yield at, f"{dotted(at)}: keys of one axis move together and need as many values each; {told}"
        elif len(lengths) == 1 and where == ("axes",):  # a profile may have one value for several of another
            values = next(iter(axis.values()))
            twice = [value for i, value in enumerate(values) if value in values[:i]]
            if twice:
                yield at, f"{dotted(at)}: {twice[0]!r} is given twice"


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
            for problem in error.errors():
                yield here, explain({**problem, "loc": ()}, BaseSpec, whole=dotted(here))[1]


def _of_base(spec: SweepSpec) -> list[str]:
    """Names in the settings of the file and of its profiles that nothing has."""
    lines = _of_names("base", spec.base)
    for name, profile in spec.profiles.items():
        where = f"profiles.{name}.base"
        try:
            lines += _of_names(where, BaseSpec.model_validate(profile.base))
        except ValidationError as error:
            lines += [f"{where}.{explain(problem, BaseSpec, whole=where)[1]}" for problem in error.errors()]
    listed: list[tuple[str, Sequence[Axis | None]]] = [("axes", spec.axes)]
    listed += [(f"profiles.{name}.axes", p.axes) for name, p in spec.profiles.items()]
    for where, axes in listed:
        for place, axis in enumerate(axes):
            for index, value in enumerate((axis or {}).get("backbone", ())):
                lines += _of_backbone(f"{where}[{place}].backbone[{index}]", value)
    return lines


def _of_names(where: str, base: BaseSpec) -> list[str]:
    unknown = [name for name in base.measures if name not in MEASURES]
    lines = [f"{where}.measures: {name!r} is no measure; {did_you_mean(name, MEASURES)}" for name in unknown]
    return lines + _of_backbone(f"{where}.backbone", base.backbone)


def _of_backbone(where: str, name: str) -> list[str]:
    if name.partition("/")[0] in ("timm", "hf"):
        return []
    try:
        backbone_spec(name)
    except UnknownBackbone as error:
        return [f"{where}: {error}"]
    return []


def _of_points(spec: SweepSpec, changed: bool) -> list[str]:
    """Grids that are too large, and excludes and printed rows that belong to no point.

    Args:
        changed: axes may have been cut, so that what names a point that is gone is right.
    """
    lines = []
    points: dict[str, list[dict[str, Any]]] = {}
    for name in spec.profiles or ("",):
        try:
            settled = spec.settled(name or None)
            points[name] = [point.values for point in expand(settled)]
        except ValidationError:
            return []  # told with the profile's base
        except (RegistryError, ValueError) as error:
            lines.append(f"{f'profiles.{name}' if name else 'axes'}: {error}")
    if lines:
        return lines
    keys = {key for rows in points.values() for row in rows[:1] for key in row}
    used = {name: points[name] for name in points if not name or spec.profiles[name].excludes is None}
    groups = [("excludes", spec.excludes, used)]
    groups += [
        (f"profiles.{name}.excludes", profile.excludes or [], {name: points[name]})
        for name, profile in spec.profiles.items()
    ]
    for where, excludes, among in groups:
        for index, exclude in enumerate(excludes):
            lines += _of_place(f"{where}[{index}].when", exclude.when, keys, among, changed)
    if spec.paper is not None:
        known = keys | set(VARIED)
        for index, row in enumerate(spec.paper.rows):
            at = {key: value for key, value in row.at.items() if key in keys or key not in VARIED}
            lines += _of_place(f"paper.rows[{index}].at", at, known, points, changed)
        for index, effect in enumerate(spec.paper.effects or []):
            for end, at in (("from", effect.from_), ("to", effect.to)):
                at = {key: value for key, value in at.items() if key in keys or key not in VARIED}
                lines += _of_place(f"paper.effects[{index}].{end}", at, known, points, changed)
    return lines


def _of_place(
    where: str, at: Mapping[str, Any], keys: set[str], points: Mapping[str, list[dict[str, Any]]], changed: bool
) -> list[str]:
    unknown = [key for key in at if key not in keys]
    if unknown:
        return [f"{where}.{key}: no axis varies it; {did_you_mean(key, keys)}" for key in unknown]
    if changed or any(matches(values, at) for rows in points.values() for values in rows):
        return []
    return [f"{where}: no point has {', '.join(f'{k} = {v}' for k, v in at.items())}"]


def _without(content: dict[str, Any], locations: Sequence[Location]) -> dict[str, Any]:
    """The content without what was refused, an axis made empty rather than taken out: the others keep their places."""
    kept = copy.deepcopy(content)
    for location in sorted(locations, key=lambda place: [str(part).zfill(6) for part in place], reverse=True):
        axis = "axes" in location and len(location) > location.index("axes") + 1
        if axis:
            location = location[: location.index("axes") + 2]
        owner: Any = kept
        try:
            for part in location[:-1]:
                owner = owner[part]
            if axis:
                owner[location[-1]] = {}
            else:
                del owner[location[-1]]
        except (KeyError, IndexError, TypeError):
            if location == ("name",):
                kept["name"] = ORIGIN
    return kept
