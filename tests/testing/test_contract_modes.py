"""What is wrong in some mode, surroundings or size alone is caught, and what only looks like it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from testing.zoo import Specimen, spec
from testing.zoo_modes import MODES, NOT_WRONG, SIZES

from tokred.registry import build
from tokred.testing import CHECKS, Profile, default_backbones, run_checks
from tokred.testing.search import search_steps

ONE = Profile("one", 1)


@pytest.fixture(autouse=True)
def as_torch_has_it() -> Iterator[None]:
    """What some of them leave behind, by their nature."""
    yield
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cudnn.benchmark = False
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("wrong", MODES, ids=lambda wrong: f"{wrong.reducer}-{wrong.check}")
def test_it_is_caught_on_a_small_model(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check)


@pytest.mark.parametrize("wrong", SIZES, ids=lambda wrong: f"{wrong.reducer}-{wrong.check}")
def test_it_is_caught_at_its_size_with_a_line_that_shows_it_again(wrong: Specimen) -> None:
    checks = [check for check in CHECKS if check.name == wrong.check]
    (outcome,) = search_steps(build(spec(wrong.reducer)), checks, ONE)
    assert (outcome.check, outcome.status) == (wrong.check, "failed"), outcome.detail
    assert wrong.says in outcome.detail
    assert "tokred.testing.StepExample(" in outcome.detail


@pytest.mark.parametrize(("reducer", "check"), NOT_WRONG)
def test_what_only_looks_like_it_passes(reducer: str, check: str) -> None:
    outcomes = run_checks(build(spec(reducer)), default_backbones()[:1], only=check)
    assert [outcome.detail for outcome in outcomes if outcome.status == "failed"] == []
