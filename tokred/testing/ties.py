"""Which of two equal tokens is kept: the earlier one, where a method's choice does not depend on places."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from tokred.backbones.geometry import Geometry
from tokred.reducer import TokenReducer
from tokred.testing.example import StepExample
from tokred.testing.failures import Broken, expect
from tokred.testing.stand_in import View
from tokred.testing.trial import Refused, Trial

FRAMES = ((2, 3), (2, 5), (2, 7), (4, 5), (6, 3))
"""Rows and columns: even numbers of tokens, of which many shares are odd, so that a pair has to part."""

BATCH = 4
ENOUGH = 12
"""Rounding may part equal tokens either way, so one pair says nothing; this many that all part the same way do."""


def expect_earlier(reducer: TokenReducer, geometry: Geometry) -> None:
    """Raise ``Broken`` where a reducer keeps the later of two tokens with the same bits whenever it keeps only one.

    Nothing is said of methods whose choice depends on places (a regular grid, a matching of even with odd positions,
    random numbers by place), which is found out by swapping neighbours that differ, nor of steps that merge.

    Args:
        reducer: at the strength to look at; geometry: of the host, whose prefix and width are taken.
    """
    later = 0
    for t in (1, 2):
        for h, w in FRAMES:
            example = replace(StepExample.like(geometry, batch=BATCH), grid=(t, h, w), step=0)
            try:
                trial = Trial(copy.deepcopy(reducer), example)
                plain, swapped, tied = (_kept(trial, order) for order in ("", "swapped", "twins"))
            except (Refused, Broken):
                continue  # other clauses say what is wrong
            if plain is None or swapped is None or tied is None:
                return
            if not torch.equal(swapped.unflatten(1, (-1, 2)).flip(2).flatten(1), plain):
                return
            first, second = tied.unflatten(1, (-1, 2)).unbind(2)
            if bool((first & ~second).any()):
                return
            later += int((second & ~first).sum())
    expect(
        later < ENOUGH,
        "the earlier of two equal tokens to be kept where only one of them is: ties go by index",
        f"the later one, {later} times out of {later}",
    )


def _kept(trial: Trial, order: str) -> Tensor | None:
    """(B, P) which patch tokens the first step keeps; None where it does not choose among them."""
    run = trial.view(View(torch.float64 if order != "twins" else torch.float32, order=order))
    step = next((step for step in run.steps if step.reduction is not None), None)
    if step is None or step.reduction is None:
        raise Refused("it does nothing here")
    if step.before.patch_count % 2:
        raise Refused("its tokens do not come in pairs here")
    if step.reduction.chosen is None:
        return None
    return step.reduction.positions()[:, step.before.prefix :] >= 0
