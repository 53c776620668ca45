"""What names points of a grid - excludes, printed rows, printed effects - and whether there are such points."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from tokred.run.grid import expand, matches
from tokred.run.spec_file import did_you_mean
from tokred.run.sweep_repair import NOTHING
from tokred.run.sweep_spec import VARIED, Exclude, SweepSpec

Points = Mapping[str, list[dict[str, Any]]]


def of_points(spec: SweepSpec, written: set[str], *, changed: bool) -> tuple[list[str], SweepSpec]:
    """Grids that are too large, and excludes and printed rows that belong to no point.

    Args:
        written: keys of axes as the file has them, refused ones too: what follows from these is not told.
        changed: axes may have been cut, so that what names a point that is gone is right.
    Returns:
        The lines, and the sweep with excludes that leave out what they do by the keys that are known.
    """
    lines = []
    points: dict[str, list[dict[str, Any]]] = {}
    keys: set[str] = set()
    for name in spec.profiles or ("",):
        settled = spec.settled(name or None)
        keys |= {key for axis in settled.axes for key in axis} | {"seed"}
        try:
            points[name] = [point.values for point in expand(settled)]
        except ValueError as error:
            lines.append(f"{f'profiles.{name}' if name else 'axes'}: {error}")
            changed = True
    places = _Places(keys, written - keys, changed)
    used = {name: rows for name, rows in points.items() if not name or spec.profiles[name].excludes is None}
    lines += places.of_excludes("excludes", spec.excludes, used)
    for name, profile in spec.profiles.items():
        rows = {name: points[name]} if name in points else {}
        lines += places.of_excludes(f"profiles.{name}.excludes", profile.excludes or [], rows)
    lines += _of_paper(spec, places, points)
    if not lines:
        return lines, spec
    profiles = {
        name: profile.model_copy(update={"excludes": profile.excludes and places.forgiving(profile.excludes)})
        for name, profile in spec.profiles.items()
    }
    return lines, spec.model_copy(update={"excludes": places.forgiving(spec.excludes), "profiles": profiles})


def _of_paper(spec: SweepSpec, places: _Places, points: Points) -> list[str]:
    lines: list[str] = []
    if spec.paper is None:
        return lines
    named = [(f"paper.rows[{index}].at", row.at) for index, row in enumerate(spec.paper.rows)]
    for index, effect in enumerate(spec.paper.effects or []):
        named += [(f"paper.effects[{index}].from", effect.from_), (f"paper.effects[{index}].to", effect.to)]
    for where, at in named:
        # What is not varied here may be told all the same: it is that of every point.
        told = {key: value for key, value in at.items() if key in places.keys or key not in VARIED}
        lines += places.of_place(where, told, points)
    return lines


class _Places:
    """``keys``: of points; ``refused``: keys of axes that are not, because something is wrong with them."""

    def __init__(self, keys: set[str], refused: set[str], changed: bool) -> None:
        self.keys, self.refused, self.changed = keys, refused, changed

    def of_excludes(self, where: str, excludes: Sequence[Exclude], points: Points) -> list[str]:
        lines: list[str] = []
        for index, exclude in enumerate(excludes):
            if NOTHING not in exclude.when:
                lines += self.of_place(f"{where}[{index}].when", exclude.when, points)
        return lines

    def of_place(self, where: str, at: Mapping[str, Any], points: Points) -> list[str]:
        unknown = [key for key in at if key not in self.keys]
        if unknown:
            told = [key for key in unknown if not self._follows(key)]
            return [f"{where}.{key}: no axis varies it; {did_you_mean(key, self.keys)}" for key in told]
        if self.changed or any(matches(values, at) for rows in points.values() for values in rows):
            return []
        return [f"{where}: no point has {', '.join(f'{k} = {v}' for k, v in at.items())}"]

    def _follows(self, key: str) -> bool:
        """Whether a key is unknown because an axis that is refused has it, or was meant to have it."""
        return bool(difflib.get_close_matches(key, self.refused))

    def forgiving(self, excludes: Sequence[Exclude]) -> list[Exclude]:
        """Excludes by those of their keys that are known: which of their points they leave out is not known."""
        known = [{key: value for key, value in exclude.when.items() if key in self.keys} for exclude in excludes]
        return [
            exclude.model_copy(update={"when": when or exclude.when})
            for exclude, when in zip(excludes, known, strict=True)
        ]
