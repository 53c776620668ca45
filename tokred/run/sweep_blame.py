"""Which setting of a grid is to blame when points cannot be run: the one without which the error is gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokred.run.grid import SEED

Check = Callable[[Mapping[str, Any]], str | None]
"""From the values of a point, or some of them, to what is wrong with them."""

Culprit = tuple[str, str]


@dataclass
class _Blame:
    """``reasons``: settings that are to blame together -> the first reason."""

    check: Check
    reasons: dict[tuple[Culprit, ...], str] = field(default_factory=dict)

    def rest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values without those that are to blame for something by themselves."""
        return {key: value for key, value in values.items() if ((key, str(value)),) not in self.reasons}

    def find(self, points: Sequence[Mapping[str, Any]], *, by_change: bool) -> bool:
        """Blame single settings; whether any was found.

        Args:
            by_change: also one without which the error is another one, where there is just one such.
        """
        found = False
        for point in points:
            values = self.rest(point)
            reason = self.check(values)
            if reason is None:
                continue
            alone, other = self.without(values, reason)
            chosen = alone or (other if by_change else [])
            if len(chosen) == 1:
                self.reasons[(chosen[0],)] = reason
                found = True
        return found

    def without(self, values: Mapping[str, Any], reason: str) -> tuple[list[Culprit], list[Culprit]]:
        """The settings without which nothing is wrong, and those without which something else is."""
        alone, other = [], []
        for key in values:
            if key == SEED:
                continue
            left = self.check({k: v for k, v in values.items() if k != key})
            if left is None:
                alone.append((key, str(values[key])))
            elif _bare(left) != _bare(reason):
                other.append((key, str(values[key])))
        return alone, other


def blame(points: Sequence[Mapping[str, Any]], check: Check, places: Mapping[str, str]) -> list[str]:
    """What is wrong with a grid, each setting that is to blame once.

    Args:
        points: the values of those that cannot be run; check: what is wrong with values.
        places: axis key -> where it stands in the file.
    Returns:
        ``axes[1].reducer.r: 400: REASON (in 4 points)``, sorted by place; "base" where no axis is to blame.
    """
    found = _Blame(check)
    # A point may be wrong in several ways: what is known to be wrong is taken out, and the rest is looked at again.
    while found.find(points, by_change=False) or found.find(points, by_change=True):
        pass
    for point in points:
        values = found.rest(point)
        reason = check(values)
        if reason is not None:
            alone, other = found.without(values, reason)
            found.reasons.setdefault(tuple(alone or other), reason)
    lines = {}
    for culprits, reason in found.reasons.items():
        where = " with ".join(f"{places[key]}: {value}" for key, value in culprits) or "base"
        count = sum(all(str(point.get(key)) == value for key, value in culprits) for point in points)
        lines[where] = f"{where}: {reason}{f' (in {count} points)' if count > 1 else ''}"
    return [lines[where] for where in sorted(lines)]


def _bare(reason: str) -> str:
    """A reason without the reducer's spec in front, which every setting changes."""
    return re.sub(r"^'[^']*': ", "", reason)
