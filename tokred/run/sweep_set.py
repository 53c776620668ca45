"""Changes to a sweep's settings from the command line, before they are checked."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from tokred.run.grid import KNOB, reducer_text
from tokred.run.spec_file import SpecError, did_you_mean, parse_yaml
from tokred.run.sweep_spec import DEFAULT_PROFILE, BaseSpec, Profile, SweepSpec


def apply_sets(
    content: dict[str, Any], sets: Sequence[str], profile: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The content with changes, and what is wrong with them.

    ``base.clips=50`` and ``base.reducer.r=4`` change a setting, ``seeds=[0,1]`` a list, ``axes.order=[FBF,BFB]`` the
    values of the axis with that key (or that last component of it). Values that an axis has already select these; keys
    of the same axis go along, and so do profiles with as many values: their points stay those of the same rows.

    Args:
        content: a mapping, left as it is; sets: ``KEY=VALUE``, the value YAML.
        profile: whose settings are changed where it has its own.
    """
    changed = copy.deepcopy(content)
    profiles = changed.get("profiles")
    name = profile or DEFAULT_PROFILE
    own = profiles.get(name) if isinstance(profiles, dict) else None
    problems = []
    for text in sets:
        key, equals, written = text.partition("=")
        key = key.strip()
        if not equals or not key:
            problems.append(f"--set {text}: not KEY=VALUE")
            continue
        try:
            value = parse_yaml(written, f"--set {key}")
            _change(changed, own if isinstance(own, dict) else None, key, value, name)
        except SpecError as error:
            problems += [f"--set {text}: {problem}" for problem in error.problems]
        except ValueError as error:
            problems.append(f"--set {text}: {error}")
    return changed, problems


def _change(content: dict[str, Any], own: dict[str, Any] | None, key: str, value: Any, profile: str) -> None:
    head, _, rest = key.partition(".")
    if head == "axes" and rest:
        _change_axis(content, own, rest, value, profile)
    elif head == "base" and rest:
        field, _, knob = rest.partition(".")
        if field not in BaseSpec.model_fields or (knob and field != "reducer"):
            raise ValueError(f"unknown; {did_you_mean(field, BaseSpec.model_fields)}")
        holder = content if own is None else own
        base, shared = holder.get("base") or {}, content.get("base") or {}
        if not isinstance(base, dict) or not isinstance(shared, dict):
            raise ValueError("base is no mapping (KEY: VALUE)")
        holder["base"] = base
        if knob:
            written = base.get("reducer", shared.get("reducer", "none"))
            value = _with_knob(written, knob, value)
        base[field] = value
    elif not rest and own is not None and head in Profile.model_fields and head not in ("base", "axes"):
        own[head] = value
    elif not rest and head in SweepSpec.model_fields and head not in ("base", "axes", "profiles"):
        content[head] = value
    else:
        allowed = ["seeds", "labels", "base.KEY", "axes.KEY"]
        raise ValueError(f"unknown; {did_you_mean(key, allowed)}")


def _with_knob(reducer: Any, knob: str, value: Any) -> Any:
    from tokred.registry import with_settings

    return with_settings(reducer_text(reducer), {knob: value})


def _change_axis(content: dict[str, Any], own: dict[str, Any] | None, key: str, values: Any, profile: str) -> None:
    if not isinstance(values, list):
        raise ValueError(f"an axis needs a list: axes.{key}=[{values}]")
    profiles = content.get("profiles")
    others = {n: p for n, p in profiles.items() if isinstance(p, dict)} if isinstance(profiles, dict) else {}
    shared, replaced = dict(_keys(content)), {} if own is None else dict(_keys(own))
    run = {place: replaced.get(place) or shared.get(place, []) for place in {*shared, *replaced}}
    known = [(place, name) for place, names in run.items() for name in names]
    # What a profile replaces still names its rows, where it has as many.
    known += [(place, name) for place, names in shared.items() for name in names if (place, name) not in known]
    found = [at for at in known if at[1] == key] or [at for at in known if at[1].rpartition(".")[2] == key]
    if not found:
        raise ValueError(_no_axis(key, [name for _, name in known], others, profile))
    if len(found) > 1:
        raise ValueError(f"it may be {' or '.join(name for _, name in found)}")
    place, name = found[0]
    axis = (own if own is not None and name in replaced.get(place, ()) else content)["axes"][place]
    before = axis[name]
    runs_it = name in run[place]
    rows = None
    if isinstance(before, list) and all(value in before for value in values):
        rows = [before.index(value) for value in values]
    elif not runs_it:
        raise ValueError(f"profiles.{profile}.axes[{place}] has {', '.join(run[place])} instead of {name}")
    if rows is None:
        axis[name] = values
        return
    for part in (content, *others.values()):
        axes = part.get("axes")
        if isinstance(axes, list) and len(axes) > place and isinstance(axes[place], dict):
            for other, listed in axes[place].items():
                if isinstance(listed, list) and len(listed) == len(before):
                    axes[place][other] = [listed[row] for row in rows]


def _no_axis(key: str, known: list[str], others: dict[str, dict[str, Any]], profile: str) -> str:
    places = [
        f"profiles.{name}.axes[{place}]"
        for name, other in others.items()
        for place, names in _keys(other)
        if any(key in (full, full.rpartition(".")[2]) for full in names)
    ]
    if places:
        return f"{' and '.join(places)} has it, and profile {profile} is run; allowed: {', '.join(known) or 'nothing'}"
    allowed = {*known, *(name.removeprefix(KNOB) for name in known)}
    return f"no axis has it; {did_you_mean(key, allowed)}"


def _keys(part: dict[str, Any]) -> Iterator[tuple[int, list[str]]]:
    """The axes of a file or a profile: their places and keys."""
    axes = part.get("axes")
    for place, axis in enumerate(axes if isinstance(axes, list) else ()):
        if isinstance(axis, dict) and axis:
            yield place, [str(key) for key in axis]
