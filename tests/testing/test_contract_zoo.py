"""The checks are tested: each catches a wrong reducer that is meant for it, and drawn steps alone catch most."""

from __future__ import annotations

import pytest
import torch
from testing.zoo import ELSEWHERE, ZOO, Specimen, spec

from tokred.registry import build
from tokred.testing import CHECKS, Profile
from tokred.testing.search import search_steps

FEW = Profile("few", 60)


def test_there_is_a_wrong_reducer_for_every_check_and_none_for_what_is_no_check() -> None:
    assert {specimen.check for specimen in ZOO} | ELSEWHERE.keys() == {check.name for check in CHECKS}
    assert len({specimen.reducer for specimen in ZOO}) >= 25


@pytest.mark.parametrize("wrong", [s for s in ZOO if s.drawn], ids=lambda wrong: f"{wrong.reducer}-{wrong.check}")
def test_drawn_steps_catch_it_without_any_model(wrong: Specimen) -> None:
    checks = [check for check in CHECKS if check.name == wrong.check]
    try:
        (outcome,) = search_steps(build(spec(wrong.reducer)), checks, FEW)
    finally:
        torch.nn.modules.module._global_forward_hooks.clear()  # what Hooks leaves, by its nature
    assert (outcome.check, outcome.status) == (wrong.check, "failed"), outcome.detail
    assert "tokred.testing.check_step(tokred.build(" in outcome.detail
