from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from testing.zoo import Specimen, about, spec

from tokred.methods import EViT, VidTLDR
from tokred.reduction import Merge
from tokred.registry import build
from tokred.testing import CHECKS, Profile, StepExample, default_backbones
from tokred.testing.case import Case
from tokred.testing.search import search_steps
from tokred.testing.trial import Trial
from tokred.testing.values import _expect_values, _values_drawn, check_values, other_masses

VIDEO, IMAGE, _ = default_backbones()
HERE = [check for check in CHECKS if check.name in ("check_values", "check_mass_conserved", "check_restore")]


@pytest.mark.parametrize("wrong", about("check_values"), ids=lambda wrong: wrong.reducer)
def test_values_that_nobody_stated_are_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


def test_a_merge_by_mass_passes() -> None:
    check_values(Case(build(spec("Merges")), IMAGE))


def test_who_weighs_by_something_else_is_held_to_those_weights() -> None:
    """Attention that adds up to less than one (EViT) and saliency that may be zero (vid-TLDR) are stated there."""
    check_values(Case(EViT(keep=0.5, at=(1,)), IMAGE))
    for kind in ("normal", "uniform", "zero_rows"):
        example = StepExample(grid=(1, 3, 4), masses="mixed", attention=kind, prefix=1)
        for weighted in ("sources", "all"):
            _values_drawn(Trial(VidTLDR(r=4, weighted=weighted), example))


def test_members_that_weigh_nothing_together_become_zero() -> None:
    """There is no mean of them, so nothing is asked of them as equal tokens."""
    ((where, step, merge),) = Trial(build(spec("Merges")), StepExample(grid=(1, 3, 4))).reduced
    assert isinstance(merge, Merge)
    _expect_values(where, step, replace(merge, weight=torch.zeros(merge.assign.shape)))


def test_a_mix_of_averages_passes_also_where_windows_cannot_carry_it_out() -> None:
    found = {o.check: (o.status, o.detail) for o in search_steps(build(spec("GoodMix")), HERE, Profile("few", 30))}
    assert set(found.values()) == {("passed", "30 drawn steps")}


def test_masses_that_are_made_up_leave_prefix_tokens_at_one() -> None:
    size = other_masses(torch.zeros(2, 30, 4), prefix=2)
    assert bool((size[:, :2] == 1).all())
    assert set(size[:, 2:].flatten().tolist()) == {1.0, 2.0, 3.0, 4.0, 5.0}
