"""Sizes that small models and drawn steps do not have, in a few examples that every profile looks at.

Much goes wrong at a size alone: positions in eight bits, statistics over a batch, blocks and frames that no small model
has, a step that drops almost nothing, a single token. A step without a model is cheap at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tokred.testing.check import Check
from tokred.testing.example import StepExample
from tokred.testing.trial import Refused, Trial

_MANY = StepExample(
    grid=(8, 7, 6),
    batch=9,
    dim=8,
    heads=2,
    depth=12,
    strength=0.25,  # a keep ratio of about 0.97
    step=7,
    seed=1,
)

LARGE = (
    replace(_MANY, prefix=2, class_token=True, masses="mixed"),
    _MANY,
    StepExample(grid=(8, 7, 6), batch=9, dim=8, heads=2, windows=True, strength=4, step=None, seed=1),
)
"""336 patches of eight frames in a batch of nine, at the eighth of twelve blocks; behind prefix tokens, without any, in
windows. A reducer is looked at on the first that it takes."""

SINGLE = (StepExample(grid=(1, 1, 2), batch=2, gone=1, strength=4),)
"""One patch token in each of two samples."""

FIXED = (LARGE, SINGLE)
"""Of each group, the first example that a reducer takes."""


def look_at_fixed(
    make: Callable[[StepExample], Trial], checks: Sequence[Check], hosts: Sequence[bool]
) -> Iterator[tuple[Check, Trial, Exception]]:
    """What breaks at these sizes.

    Args:
        make: the reducer on an example, or ``Refused``; checks: those with ``drawn``; hosts: of plain (False) and
            hierarchical (True) hosts, those on which it takes a step.
    """
    for group in FIXED:
        trials = (trial for example in group if example.windows in hosts and (trial := _taken(make, example)))
        trial = next(trials, None)
        if trial is None:
            continue
        for check in checks:
            assert check.drawn is not None
            try:
                check.drawn(trial)
            except Refused:
                break
            except Exception as error:
                yield check, trial, error


def _taken(make: Callable[[StepExample], Trial], example: StepExample) -> Trial | None:
    """The reducer on an example; None where it refuses it."""
    try:
        trial = make(example)
    except Refused:
        return None
    try:
        trial.run()
    except Refused:
        return None
    except Exception:
        pass  # broken, which a clause will say
    return trial
