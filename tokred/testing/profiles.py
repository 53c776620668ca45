"""How long to look: the number of drawn examples of each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A budget.

    Args:
        name: of the profile.
        steps: drawn examples of one step that every clause looks at.
        backbones: drawn small backbones on which all clauses but the slow ones run.
        seed: where the search starts; the same seed draws the same examples.
        another: whether decisions are compared with those of another process, which takes seconds to start.
    """

    name: str
    steps: int
    backbones: int = 0
    seed: int = 0
    another: bool = False


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("default", 40),
        Profile("ci", 300, backbones=2, another=True),
        Profile("deep", 10_000, backbones=10, another=True),
    )
}
"""By name: seconds a method, about a minute, and for a night."""


def profile_of(name: str | None, deep: bool) -> Profile:
    """The profile that is meant; ``deep`` is short for the profile of that name.

    Raises:
        ValueError: no profile of that name, or two different ones asked for.
    """
    if deep and name not in (None, "deep"):
        raise ValueError(f"deep = True and profile = {name!r} contradict each other: give one of them")
    chosen = "deep" if deep else name or "default"
    if chosen not in PROFILES:
        raise ValueError(f"profile = {chosen!r} is not one of {', '.join(PROFILES)}")
    return PROFILES[chosen]
