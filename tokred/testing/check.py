"""A named clause of the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokred.reducer import Capabilities
from tokred.testing.case import Case
from tokred.testing.trial import Trial

Unless = Callable[[Capabilities], str | None]
OnDrawn = Callable[[Trial], None]


@dataclass(eq=False)
class Check:
    """One clause and the functions that look whether a reducer keeps it.

    Args:
        name: "check_..."; clause: what every reducer promises.
        function: looks on a backbone; raises ``Broken`` or ``NotApplicable``.
        unless: from the declared capabilities, why the clause does not apply; None = it does.
        once: one backbone is enough (slow checks).
        drawn: looks on a drawn example of one step, thousands of times a minute; None = nothing to see there.
    """

    name: str
    clause: str
    function: Callable[[Case], str | None]
    unless: Unless
    once: bool
    drawn: OnDrawn | None = None

    def __call__(self, case: Case) -> str | None:
        """Look; what is worth telling about a pass, if anything."""
        return self.function(case)

    def on_drawn(self, function: OnDrawn) -> OnDrawn:
        """Decorator: how the same clause is looked at on drawn examples."""
        self.drawn = function
        return function


def check(
    clause: str, *, unless: Unless = lambda _: None, once: bool = False
) -> Callable[[Callable[[Case], str | None]], Check]:
    """Make a function into a ``Check`` of its own name."""
    return lambda function: Check(function.__name__, clause, function, unless, once)


def content_decides(capabilities: Capabilities) -> str | None:
    """For clauses about counts that are known beforehand."""
    return None if capabilities.static_counts else "its token counts depend on the content"
