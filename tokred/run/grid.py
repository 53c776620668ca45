"""From axes to points: every combination once, in a fixed order, with the reason where one is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from tokred.registry import with_settings
from tokred.spec_text import RegistryError

if TYPE_CHECKING:
    from tokred.run.sweep_spec import Axis, BaseSpec, Exclude, Settled

SEED = "seed"

KNOB = "reducer."
"""Axis keys that begin with it reach into the reducer's settings."""

MAX_POINTS = 10_000


@dataclass(frozen=True)
class Point:
    """One combination of the axes.

    Args:
        values: axis key -> value, in the order of the axes, then "seed".
        excluded: the reason why it is not computed, None where it is.
    """

    values: dict[str, Any]
    excluded: str | None = None


def size(settled: Settled) -> int:
    """Number of points, those left out too."""
    return math.prod(length(axis) for axis in settled.axes) * len(settled.seeds)


def length(axis: Axis) -> int:
    """Number of values of an axis, whose keys move together; an axis without keys has one point."""
    return len(next(iter(axis.values()), [None]))


def expand(settled: Settled) -> list[Point]:
    """All points: the last axis moves faster than those before it, and the seed fastest.

    Raises:
        ValueError: more than 10,000.
    """
    if size(settled) > MAX_POINTS:
        raise ValueError(f"{size(settled)} points; allowed are {MAX_POINTS}")
    points = []
    for indices in product(*(range(length(axis)) for axis in settled.axes)):
        values = {
            key: reducer_text(found[at]) if key == "reducer" else found[at]
            for at, axis in zip(indices, settled.axes, strict=True)
            for key, found in axis.items()
        }
        for seed in settled.seeds:
            full = {**values, SEED: seed}
            points.append(Point(full, _excluded(full, settled.excludes)))
    return points


def matches(values: Mapping[str, Any], at: Mapping[str, Any]) -> bool:
    """Whether a point has all the values of ``at``; reducers are compared as they are written in a spec."""
    missing = object()
    return all(values.get(k, missing) == (reducer_text(v) if k == "reducer" else v) for k, v in at.items())


def _excluded(values: dict[str, Any], excludes: Sequence[Exclude]) -> str | None:
    return next((exclude.reason for exclude in excludes if matches(values, exclude.when)), None)


def reducer_text(reducer: Any) -> str:
    """A reducer as a spec; a mapping ``{method: sta, r: 8}`` is one too.

    Raises:
        RegistryError: a mapping without a method.
    """
    if not isinstance(reducer, dict):
        return str(reducer)
    settings = {key: value for key, value in reducer.items() if key != "method"}
    if not isinstance(reducer.get("method"), str):
        raise RegistryError(f"{reducer!r} has no method")
    return with_settings(reducer["method"], settings)


def setting(base: BaseSpec, values: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The fields of a point, and its reducer with the knobs that axes turn.

    Args:
        values: of the point; "seed" is no field.
    Raises:
        RegistryError: knobs of a composition.
    """
    fields = {**base.model_dump(), **{k: v for k, v in values.items() if k != SEED and not k.startswith(KNOB)}}
    knobs = {key.removeprefix(KNOB): value for key, value in values.items() if key.startswith(KNOB)}
    return fields, with_settings(reducer_text(fields["reducer"]), knobs)
