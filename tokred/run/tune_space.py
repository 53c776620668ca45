"""The schedules that a search may try: where a method's steps run and how much each of them takes, at a fixed cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tokred.backbones.geometry import Geometry
from tokred.budget import NEAR, macs_of
from tokred.measure.flops import count, unreduced_plan
from tokred.reducer import TokenReducer
from tokred.schedule import ScheduleError

MOST_STEPS = 6
HALVINGS = 14
STRONGEST = 4.0
"""A single step may take so many times what each step of the plain schedule can take at most."""

EVENED = (1.0, 0.5, 0.0)
"""Steps that would take more than there is are brought closer to each other, in these exponents, before a shape is
given up."""


class Suggest(Protocol):
    """The part of an Optuna trial that a space asks."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_float(self, name: str, low: float, high: float) -> float: ...


class Unreachable(ValueError):
    """No strength of a shape comes near the budget."""


@dataclass(frozen=True)
class Candidate:
    """A schedule at the budget: the reducer, and its share of the unreduced multiply-adds."""

    reducer: TokenReducer
    share: float


class Space:
    """The schedules of one method on one backbone.

    Args:
        reducer: the method, every setting but its strength, ``at`` and schedule as it stays.
        geometry: sizes of the backbone; share: of the unreduced multiply-adds that every candidate costs.
    Raises:
        ScheduleError: a method whose steps have no places or no strength.
    """

    def __init__(self, reducer: TokenReducer, geometry: Geometry, share: float) -> None:
        allowed = inspect.signature(type(reducer).__init__).parameters
        if not reducer.strength or "at" not in allowed:
            raise ScheduleError(f"{reducer.spec} has no schedule to search: it needs the settings `at` and a strength")
        if geometry.stages:
            raise ScheduleError(
                f"{reducer.spec}: on a backbone of several stages the places of the steps belong to the method"
            )
        self.reducer, self.geometry, self.share = reducer, geometry, share
        self.several = "tuple" in str(allowed[reducer.strength].annotation)
        self._plain: dict[str, Any] = {"schedule": "decreasing"} if "schedule" in allowed else {}
        self._full = count(geometry, unreduced_plan(geometry)).macs
        self._unit = reducer.strength_range(geometry).strongest

    def propose(self, trial: Suggest) -> Candidate:
        """A schedule from a trial's numbers: a number of steps, their places, their shares of the work.

        Raises:
            Unreachable: this shape cannot cost what it should.
        """
        depth = self.geometry.depth
        steps = trial.suggest_int("steps", 1, min(MOST_STEPS, depth))
        # Places as increments, so that every number of the trial is a valid schedule.
        gaps = [trial.suggest_float(f"gap{i}", 0.05, 1.0) for i in range(steps + 1)]
        places = self._places(gaps, depth)
        weights = (
            [trial.suggest_float(f"weight{i}", 0.05, 1.0) for i in range(steps)] if self.several else [1.0] * steps
        )
        largest = max(weights)
        for evenness in EVENED:
            try:
                return self._at_budget(places, [(weight / largest) ** evenness for weight in weights])
            except Unreachable as error:
                reason = error
        raise reason

    @staticmethod
    def _places(gaps: list[float], depth: int) -> tuple[int, ...]:
        """Rising, different blocks that divide the depth as the gaps do."""
        steps, total, seen = len(gaps) - 1, sum(gaps), 0.0
        places: list[int] = []
        for i in range(steps):
            seen += gaps[i]
            low = places[-1] + 1 if places else 0
            places.append(min(max(low, round(seen / total * (depth - 1))), depth - steps + i))
        return tuple(places)

    def _at_budget(self, places: tuple[int, ...], weights: list[float]) -> Candidate:
        low, high, best = 0.0, STRONGEST, None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            found = self._candidate(places, weights, middle)
            if found is not None and (best is None or abs(found.share - self.share) < abs(best.share - self.share)):
                best = found
            low, high = (middle, high) if found is not None and found.share > self.share else (low, middle)
        if best is None or abs(best.share - self.share) > NEAR:
            raise Unreachable(f"steps behind blocks {places} in the ratio {weights} cannot cost {self.share:.0%}")
        return best

    def _candidate(self, places: tuple[int, ...], weights: list[float], scale: float) -> Candidate | None:
        amounts = [self._amount(scale * weight) for weight in weights]
        strength: Any = tuple(amounts) if self.several else amounts[0]
        try:
            reducer = self.reducer.with_(**{self.reducer.strength: strength, "at": places, **self._plain})
            return Candidate(reducer, macs_of(reducer, self.geometry).macs / self._full)
        except ScheduleError:
            return None  # more than there is to take: the bisection goes on below

    def _amount(self, scale: float) -> int | float:
        if self.reducer.schedule.kind == "keep":
            return round(max(0.02, 1.0 - 0.98 * scale / STRONGEST), 4)
        return round(scale * self._unit)


def plain(reducer: TokenReducer, geometry: Geometry, share: float, solve: Callable[..., Any]) -> Candidate:
    """The method's own schedule at the budget: what a tuned one is held against."""
    solution = solve(reducer, geometry, share)
    return Candidate(solution.reducer, solution.share)
