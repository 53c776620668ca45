"""Which setting of a grid is to blame when points cannot be run: the one without which the error is gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokred.run.grid import SEED

UNKNOWN = "?"
"""What a check answers where it cannot look, because something that it depends on is wrong."""

Values = Mapping[str, Any]
Check = Callable[[Values], str | None]
"""From the values of a point, or some of them, to what is wrong with them."""

Culprit = tuple[str, str]
NEEDED = ("reducer", "backbone")
"""Without them, and with those of the defaults, nothing can be said about the other settings of a point."""


@dataclass
class Blame:
    """What is to blame for the points of a grid that cannot be run.

    Args:
        points: the values of all that shall run, each once: those that can be run show what is not to blame.
        still: keys that are never to blame.
        reasons: settings that are to blame together -> the reason.
    """

    points: Sequence[Values]
    still: Collection[str] = (SEED,)
    reasons: dict[tuple[Culprit, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.choices: dict[str, dict[str, Any]] = {}
        for point in self.points:
            for key, value in point.items():
                self.choices.setdefault(key, {})[str(value)] = value

    def find(self, check: Check) -> None:
        """Look for all that is wrong in the sense of one check, beside what other checks have found."""
        look = _Look(self, _remembered(check))
        # A point may be wrong in several ways: what is known to be wrong is taken out, and the rest is looked at again.
        while look.singles(by_change=False) or look.singles(by_change=True):
            pass
        look.together()
        look.say_why()

    def rest(self, values: Values, but: Culprit | None = None) -> dict[str, Any] | None:
        """The values without those that are to blame by themselves; None where nothing can be said without them.

        Args:
            but: one that stays.
        """
        rest = dict(values)
        for key, value in values.items():
            if key not in rest or (key, str(value)) == but or ((key, str(value)),) not in self.reasons:
                continue
            others = [v for text, v in self.choices[key].items() if ((key, text),) not in self.reasons]
            if others:
                rest[key] = others[0]
            elif key in NEEDED:
                return None
            else:
                rest = _less(rest, key)
        return rest

    def lines(self, places: Mapping[str, str], counted: Sequence[Values]) -> list[str]:
        """``axes[1].reducer.r: 400 is not below 196 (in 4 points)``, sorted by place.

        Args:
            places: key -> where it stands in the file; counted: all points, also those that differ in a seed alone.
        """
        found = []
        for culprits, reason in self.reasons.items():
            count = sum(all(str(point.get(key)) == value for key, value in culprits) for point in counted)
            found.append(_line(culprits, reason, places) + (f" (in {count} points)" if count > 1 else ""))
        return sorted(found)


@dataclass
class _Look:
    blame: Blame
    check: Check

    def wrong(self, values: Values | None) -> str | None:
        """What is wrong, if that can be seen."""
        reason = None if values is None else self.check(values)
        return None if reason == UNKNOWN else reason

    def singles(self, *, by_change: bool) -> bool:
        """Blame single settings; whether any was found.

        Args:
            by_change: also one without which the error is another one.
        """
        found = False
        for point in self.blame.points:
            values = self.blame.rest(point)
            reason = self.wrong(values)
            if values is None or reason is None:
                continue
            chosen = [key for key in self.without(values, reason, by_change=by_change) if self.always(key, values[key])]
            if len(chosen) == 1:
                self.blame.reasons[((chosen[0], str(values[chosen[0]])),)] = reason
                found = True
        return found

    def together(self) -> None:
        """Blame settings that are wrong in this company alone."""
        for point in self.blame.points:
            values = self.blame.rest(point)
            reason = self.wrong(values)
            if values is not None and reason is not None:
                keys = self.without(values, reason, by_change=False) or self.without(values, reason, by_change=True)
                self.blame.reasons.setdefault(tuple((key, str(values[key])) for key in keys), reason)

    def say_why(self) -> None:
        """Of each single setting the reason that it has where nothing else is wrong."""
        for culprits in list(self.blame.reasons):
            if len(culprits) != 1:
                continue
            (key, text) = culprit = culprits[0]
            having = (point for point in self.blame.points if key in point and str(point[key]) == text)
            alone = (self.wrong(self.blame.rest(point, but=culprit)) for point in having)
            reason = next((reason for reason in alone if reason is not None), None)
            self.blame.reasons[culprits] = reason or self.blame.reasons[culprits]

    def without(self, values: Values, reason: str, *, by_change: bool) -> list[str]:
        """The settings without which, or with another value of the grid, nothing is wrong (or something else is)."""

        def helps(other: Values) -> bool:
            left = self.check(other)
            return left is None or (by_change and left != UNKNOWN and _bare(left) != _bare(reason))

        keys = []
        for key in values:
            choices = [v for text, v in self.blame.choices.get(key, {}).items() if text != str(values[key])]
            if key not in self.blame.still and (
                helps(_less(values, key)) or any(helps({**values, key: v}) for v in choices)
            ):
                keys.append(key)
        # Where a setting of a method is wrong, another method would help as well.
        parts = [key for key in keys if any(other.startswith(f"{key}.") for other in keys)]
        return [key for key in keys if key not in parts]

    def always(self, key: str, value: Any) -> bool:
        """Whether no point of the grid with the value is right."""
        having = [point for point in self.blame.points if str(point.get(key)) == str(value)]
        return all(self.check(rest) is not None for point in having if (rest := self.blame.rest(point)) is not None)


def _less(values: Values, key: str) -> dict[str, Any]:
    """The values without one, and without the settings that belong to it."""
    return {k: v for k, v in values.items() if k != key and not k.startswith(f"{key}.")}


def _remembered(check: Check) -> Check:
    known: dict[str, str | None] = {}

    def remembered(values: Values) -> str | None:
        key = str(sorted((k, str(v)) for k, v in values.items()))
        if key not in known:
            known[key] = check(values)
        return known[key]

    return remembered


def _line(culprits: Sequence[Culprit], reason: str, places: Mapping[str, str]) -> str:
    if len(culprits) != 1:
        where = " with ".join(f"{places[key]}: {value}" for key, value in culprits) or "base"
        return f"{where}: {_bare(reason)}"
    ((key, value),) = culprits
    return f"{places[key]}: {_told(key, value, _bare(reason))}"


def _told(key: str, value: str, reason: str) -> str:
    """A reason with the value in it, once: the place says the key."""
    reason = reason.removeprefix(f"{key.rpartition('.')[2]} = ")
    limit = re.fullmatch(rf"{re.escape(value)} .*: allowed is ((?:below|above|at least|at most) \S+)", reason)
    if limit is not None:
        block = re.search(r"at block \d+", reason)
        return f"{value} is not {limit[1]}{f' {block[0]}' if block else ''}"
    named = re.search(rf"(?<![\w.]){re.escape(value)}(?![\w.]*\w)", reason)
    return reason if named else f"{value}: {reason}"


def _bare(reason: str) -> str:
    """A reason without the reducer's spec in front, which every setting changes, and without a list of names where
    there are close ones."""
    reason = re.sub(r"^'[^']*': ", "", reason)
    return re.sub(r"(\(did you mean [^)]*\)): allowed are .*", r"\1", reason)
