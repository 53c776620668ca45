"""What decisions may depend on: not on the format of the features, and not on the order of their channels."""

from __future__ import annotations

import copy

import torch

from tokred.reducer import Capabilities
from tokred.testing.case import Case, difference, same_decisions
from tokred.testing.check import check
from tokred.testing.example import StepExample
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.identity import EXACT
from tokred.testing.near_ties import unless_a_near_tie
from tokred.testing.stand_in import View
from tokred.testing.trial import Refused, Trial

SEEDS = range(4)


@check("decisions are taken in float32 or wider, whatever the format of the features")
def check_decides_in_float32(case: Case) -> None:
    for trial in _trials(case):
        _precision_drawn(trial)


def _blind(capabilities: Capabilities) -> str | None:
    return None if capabilities.channel_blind else "it does not declare channel_blind"


@check("the order of the channels changes no decision, as declared", unless=_blind)
def check_channel_order(case: Case) -> None:
    for trial in _trials(case):
        _channels_drawn(trial)


@check_decides_in_float32.on_drawn
def _precision_drawn(trial: Trial) -> None:
    """The same numbers, held in a narrow format and in float32, decide the same."""
    for dtype in (torch.float16, torch.bfloat16):
        narrow = trial.view(View(dtype))
        wide = trial.run(View(torch.float32, through=dtype))
        expect(
            same_decisions(narrow.decisions[:1], wide.decisions[:1]),
            f"the same first decision from features in {dtype} as from the same numbers in float32",
            "another decision",
        )


@check_channel_order.on_drawn
@unless_a_near_tie
def _channels_drawn(trial: Trial) -> None:
    plain, turned = trial.view(View(torch.float64)), trial.run(View(torch.float64, turned=True))
    expect(
        same_decisions(plain.decisions, turned.decisions),
        "the same decisions with the channels in another order (it declares channel_blind)",
        "other decisions",
    )
    gap = difference(plain.tokens.x.roll(1, dims=-1).flip(-1), turned.tokens.x)
    expect(gap <= EXACT, "the same tokens with their channels in another order", f"a difference of {gap:.2g}")


def _trials(case: Case) -> list[Trial]:
    """The reducer on ordinary content of the host's sizes."""
    reducer = copy.deepcopy(case.reducer)
    try:
        return [Trial(reducer, StepExample.like(case.geometry, seed=seed)) for seed in SEEDS]
    except Refused as refused:
        raise NotApplicable(str(refused)) from refused
