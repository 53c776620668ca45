"""What a check says when a reducer breaks the contract."""

from __future__ import annotations

from typing import NamedTuple

WARNING = "warning: "
"""How what a passed check tells begins where it should not go unseen."""


class Broken(AssertionError):
    """Raised inside a check: what was expected and what came."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(f"expected {expected}; got {got}")
        self.expected = expected
        self.got = got


class NotApplicable(Exception):
    """Raised inside a check that has nothing to say about this reducer on this backbone; the message is the reason."""


class CheckFailed(AssertionError):
    """A reducer breaks the contract: which clause, what was expected, what came, how to see it again.

    Attributes:
        outcomes: the failed ``Outcome`` of each check.
    """

    def __init__(self, message: str, outcomes: tuple[Outcome, ...] = ()) -> None:
        super().__init__(message)
        self.outcomes = outcomes


class Outcome(NamedTuple):
    """One check of one reducer on one backbone.

    Args:
        check: its name; backbone: where; reducer: the spec that ran.
        status: "passed", "failed" or "skipped"; detail: the reason for the last two, several lines for a failure;
            what is worth telling for the first.
    """

    check: str
    backbone: str
    reducer: str
    status: str
    detail: str = ""


def expect(condition: bool, expected: str, got: object) -> None:
    """Raise ``Broken`` unless the condition holds."""
    if not condition:
        raise Broken(expected, str(got))
