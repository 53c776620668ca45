"""Clauses that rounding can seem to break: two scores that differ by less than rounding change places, rarely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from tokred.testing.failures import Broken
from tokred.testing.trial import Refused, Trial

OTHERS = 4
"""A break is looked for on so many other contents of the same kind: about one drawn example in 20,000 is a near tie."""


def unless_a_near_tie(drawn: Callable[[Trial], None]) -> Callable[[Trial], None]:
    """The clause, broken where it breaks on the example and on another content of the same kind too.

    What depends on the batch, or on the order of the channels, does so whatever the numbers are; a near tie does not
    come twice. Where equals are all that there is, nothing is compared.
    """

    def judged(trial: Trial) -> None:
        if rounding_decides(trial):
            return
        try:
            drawn(trial)
        except Broken:
            if _breaks_elsewhere(drawn, trial):
                raise

    return judged


def _breaks_elsewhere(drawn: Callable[[Trial], None], trial: Trial) -> bool:
    for more in range(1, OTHERS + 1):
        example = replace(trial.example, seed=trial.example.seed + more)
        try:
            drawn(Trial(trial.reducer, example, trial.weakest))
        except Broken:
            return True
        except Refused:
            continue
    return False


def rounding_decides(trial: Trial) -> bool:
    """Whether tokens or attention rows are there that are equal but for rounding: products round by their shape and the
    order of their terms, so that which of two equals comes out ahead says nothing about a method. Two patches that are
    all there is are equals, too: they are equally far from their mean."""
    example = trial.example
    equal = example.features in ("constant", "duplicated") or example.attention in ("uniform", "near_ties")
    return equal or math.prod(example.grid) == 2
