"""The schedules that a search may try: where a method's steps run and how much each of them takes, at a fixed cost."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any, Protocol

from tokred.backbones.geometry import Geometry
from tokred.budget import NEAR, macs_of
from tokred.dry import dry_run
from tokred.measure.flops import count, unreduced_plan
from tokred.reducer import TokenReducer
from tokred.schedule import ScheduleError

MOST_STEPS = 6
HALVINGS = 16
STRONGEST = 10.0
"""A step of weight one leaves exp(-10) of the tokens at most: none but the last."""

EARLIER = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Steps that act too late to save so much are moved to the front, to these shares of their depth, before a shape is
given up."""

EVENED = (1.0, 0.5, 0.0)
"""Before that, steps that would take more than they may (half, where pairs are merged) are brought closer to each
other, in these exponents."""

SLACK = 0.001
"""So much more than its share of the multiply-adds a candidate may cost: nothing is gained by paying more."""

LEAST, MOST = 0.05, 1.0
"""Range of the numbers that a trial draws."""


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
        geometry: sizes of the backbone; share: of the unreduced multiply-adds that candidates come near to from below.
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
        self._units = 1 if reducer.schedule.kind == "keep" else self._count_units()

    def propose(self, trial: Suggest) -> Candidate:
        """A schedule from a trial's numbers: a number of steps, their places, their shares of the work.

        Raises:
            Unreachable: this shape cannot cost what it should.
        """
        depth = self.geometry.depth
        steps = trial.suggest_int("steps", 1, min(MOST_STEPS, depth))
        # Places as increments, so that every number of the trial is a valid schedule.
        gaps = [trial.suggest_float(f"gap{i}", LEAST, MOST) for i in range(steps + 1)]
        weights = (
            [trial.suggest_float(f"weight{i}", LEAST, MOST) for i in range(steps)] if self.several else [1.0] * steps
        )
        largest = max(weights)
        weights = [weight / largest for weight in weights]
        for share, evenness in product(EARLIER, EVENED):
            try:
                return self._at_budget(self._places(gaps, depth, share), [weight**evenness for weight in weights])
            except Unreachable as error:
                reason = error
        raise reason

    def numbers_of(self, reducer: TokenReducer) -> dict[str, float] | None:
        """What a trial has to draw for this reducer's places and weights; None where no trial can.

        Args:
            reducer: the method at the budget, its own schedule for instance.
        """
        taken = dry_run(reducer, self.geometry).steps
        places, depth = tuple(step.block for step in taken), self.geometry.depth
        if not 0 < len(places) <= MOST_STEPS or len(set(places)) < len(places) or depth < 2:
            return None
        ends = (0, *places, depth - 1)
        gaps = [min(max((b - a) / (depth - 1), LEAST), MOST) for a, b in pairwise(ends)]
        if self._places(gaps, depth) != places:
            return None
        logs = [math.log(step.n_in / max(step.n_out, 1)) for step in taken]
        if max(logs) <= 0:
            return None
        numbers: dict[str, float] = {"steps": len(places)} | {f"gap{i}": gap for i, gap in enumerate(gaps)}
        if self.several:
            numbers |= {f"weight{i}": min(max(log / max(logs), LEAST), MOST) for i, log in enumerate(logs)}
        return numbers

    def _count_units(self) -> int:
        """What amounts are out of: all tokens, or those of one frame where a step takes as many of each."""
        one: Any = (1,) if self.several else 1
        plan = dry_run(self.reducer.with_(**{self.reducer.strength: one, "at": (0,), **self._plain}), self.geometry)
        removed = sum(step.n_in - step.n_out for step in plan.steps)
        return self.geometry.grid.patches // max(removed, 1)

    @staticmethod
    def _places(gaps: list[float], depth: int, share: float = 1.0) -> tuple[int, ...]:
        """Rising, different blocks that divide the depth as the gaps do; ``share`` moves them towards the front."""
        steps, total, seen = len(gaps) - 1, sum(gaps), 0.0
        places: list[int] = []
        for i in range(steps):
            seen += gaps[i]
            low = places[-1] + 1 if places else 0
            places.append(min(max(low, round(share * seen / total * (depth - 1))), depth - steps + i))
        return tuple(places)

    def _at_budget(self, places: tuple[int, ...], weights: list[float]) -> Candidate:
        low, high, best = 0.0, STRONGEST, None
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            found = self._candidate(places, weights, middle)
            if found is not None and found.share <= self.share + SLACK and (best is None or found.share > best.share):
                best = found
            low, high = (middle, high) if found is not None and found.share > self.share else (low, middle)
        if best is None or best.share < self.share - NEAR:
            raise Unreachable(f"steps behind blocks {places} in the ratio {weights} cannot cost {self.share:.0%}")
        return best

    def _candidate(self, places: tuple[int, ...], weights: list[float], scale: float) -> Candidate | None:
        amounts = self._amounts([scale * weight for weight in weights])
        strength: Any = tuple(amounts) if self.several else amounts[0]
        try:
            reducer = self.reducer.with_(**{self.reducer.strength: strength, "at": places, **self._plain})
            return Candidate(reducer, macs_of(reducer, self.geometry).macs / self._full)
        except ScheduleError:
            return None  # more than there is to take: the bisection goes on below

    def _amounts(self, logs: list[float]) -> list[int | float]:
        """Each step leaves exp(-log) of the tokens that it finds, so that every shape can take nearly all of them."""
        if self.reducer.schedule.kind == "keep":
            return [round(max(0.02, math.exp(-log)), 4) for log in logs]
        left = self._units
        amounts: list[Any] = []
        for log in logs:
            amounts.append(min(round(left * (1 - math.exp(-log))), left - 1))
            left -= amounts[-1]
        return amounts


def plain(reducer: TokenReducer, geometry: Geometry, share: float, solve: Callable[..., Any]) -> Candidate:
    """The method's own schedule at the budget: what a tuned one is held against."""
    solution = solve(reducer, geometry, share)
    return Candidate(solution.reducer, solution.share)
