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
            _change(changed, own if isinstance(own, dict) else None, key, value)
        except SpecError as error:
            problems += [f"--set {text}: {problem}" for problem in error.problems]
        except ValueError as error:
            problems.append(f"--set {text}: {error}")
    return changed, problems


def _change(content: dict[str, Any], own: dict[str, Any] | None, key: str, value: Any) -> None:
    head, _, rest = key.partition(".")
    if head == "axes" and rest:
        _change_axis(content, own, rest, value)
    elif head == "base" and rest:
        field, _, knob = rest.partition(".")
        if field not in BaseSpec.model_fields or (knob and field != "reducer"):
            raise ValueError(f"unknown; {did_you_mean(field, BaseSpec.model_fields)}")
        base = (content if own is None else own).setdefault("base", {})
        if knob:
            shared = content.get("base") or {}
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


def _change_axis(content: dict[str, Any], own: dict[str, Any] | None, key: str, values: Any) -> None:
    if not isinstance(values, list):
        raise ValueError(f"an axis needs a list: axes.{key}=[{values}]")
    everywhere = [content, *(p for p in (content.get("profiles") or {}).values() if isinstance(p, dict))]
    known = {name: place for part in everywhere for place, name in _keys(part)}
    full = [name for name in known if name == key] or [name for name in known if name.rpartition(".")[2] == key]
    if not full:
        short = {name.removeprefix(KNOB) for name in known}
        raise ValueError(f"no axis has it; {did_you_mean(key, {*known, *short})}")
    if len(full) > 1:
        raise ValueError(f"it may be {' or '.join(full)}")
    name, place = full[0], known[full[0]]
    holder = own if own is not None and (place, name) in set(_keys(own)) else content
    axis = holder["axes"][place]
    before = axis[name]
    if isinstance(before, list) and all(value in before for value in values):
        rows = [before.index(value) for value in values]
        for part in everywhere:
            axes = part.get("axes")
            if isinstance(axes, list) and len(axes) > place and isinstance(axes[place], dict):
                for other, found in axes[place].items():
                    if isinstance(found, list) and len(found) == len(before):
                        axes[place][other] = [found[row] for row in rows]
    else:
        axis[name] = values


def _keys(part: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """The axes of a file or a profile: their places and keys."""
    axes = part.get("axes")
    for place, axis in enumerate(axes if isinstance(axes, list) else ()):
        for key in axis if isinstance(axis, dict) else ():
            yield place, str(key)
