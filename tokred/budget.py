"""Find the setting of a method that costs a given share of the unreduced model, by bisection on the counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokred.backbones.geometry import Geometry
from tokred.dry import dry_run
from tokred.measure.flops import MacReport, count, unreduced_plan
from tokred.reducer import Strength, TokenReducer
from tokred.schedule import ScheduleError

NEAR = 0.02
"""A solution further than this share of the unreduced cost from its budget is noted."""

MANY_TOKENS = 800
"""Above it a bisection is faster on shapes alone, although that loads more of torch first."""


class BudgetError(ScheduleError):
    """No setting of the method comes near the budget."""


@dataclass(frozen=True)
class Solution:
    """A reducer at a budget.

    Args:
        reducer: with its strength set; report: its multiply-adds; share: of the unreduced model's.
        notes: where the nearest setting is off the budget.
    """

    reducer: TokenReducer
    report: MacReport
    share: float
    notes: tuple[str, ...] = ()


def macs_of(reducer: TokenReducer, geometry: Geometry) -> MacReport:
    """Multiply-adds of a reducer on a backbone, without running the backbone.

    Raises:
        ScheduleError: impossible settings.
    """
    device = "meta" if geometry.tokens > MANY_TOKENS else "cpu"
    return count(geometry, dry_run(reducer, geometry, device=device))


def solve(reducer: TokenReducer, geometry: Geometry, share: float) -> Solution:
    """The strength whose cost is nearest to ``share`` of the unreduced model, every other setting as given.

    Args:
        reducer: a method with a declared strength; geometry: sizes of the backbone; share: in (0, 1].
    Raises:
        BudgetError: even the strongest setting costs clearly more.
        ScheduleError: no strength is declared, or the share is out of range.
    """
    if not 0 < share <= 1:
        raise ScheduleError(f"budget {share} is not in (0, 1]")
    full = count(geometry, unreduced_plan(geometry)).macs
    strength = reducer.strength_range(geometry)
    tried: dict[float, tuple[TokenReducer, MacReport]] = {}

    def cost(value: float) -> float:
        if value not in tried:
            candidate = reducer.with_(**{strength.name: value})
            tried[value] = (candidate, macs_of(candidate, geometry))
        return tried[value][1].macs / full

    strongest = int(strength.strongest) if strength.whole else strength.strongest
    if reducer.capabilities.stateful and cost(strongest) >= 1 > share + NEAR:
        raise BudgetError(
            f"{reducer.method or type(reducer).__name__} saves over time alone: a clip by itself costs "
            f"{cost(strongest):.0%} at any strength here; tokred stream runs it over a whole video"
        )
    if cost(strongest) > share + NEAR:
        raise BudgetError(
            f"{reducer.spec} cannot go down to {share:.0%} of the multiply-adds: its strongest setting "
            f"({strength.name} = {strongest:g}) costs {cost(strongest):.0%}"
        )
    weak, strong = _bracket(strength, share, cost)
    best = min((weak, strong), key=lambda value: abs(cost(value) - share))
    chosen, report = tried[best]
    found = cost(best)
    notes = (f"nearest setting to {share:.0%} costs {found:.1%}",) if abs(found - share) > NEAR else ()
    return Solution(chosen, report, found, notes)


def _bracket(strength: Strength, share: float, cost: Callable[[float], float]) -> tuple[float, float]:
    """Two neighbouring settings, the weaker one costing at least the share and the stronger one at most."""
    if strength.whole:
        left, right = int(strength.weakest), int(strength.strongest)
        while abs(right - left) > 1:
            between = (left + right) // 2
            left, right = (between, right) if cost(between) > share else (left, between)
        return left, right
    weak, strong = strength.weakest, strength.strongest
    for _ in range(12):
        # Four decimals: a setting that a person can read and type again.
        middle = round((weak + strong) / 2, 4)
        if middle in (weak, strong):
            break
        weak, strong = (middle, strong) if cost(middle) > share else (weak, middle)
    return weak, strong
