from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tokred
from tokred.registry import build
from tokred.testing import CHECKS, Profile, Refused, StepExample
from tokred.testing.contract import run_check
from tokred.testing.search import search_backbones, search_steps, trial_of

WRONG = Path(__file__).parent / "wrong.py"
RESTORE = [check for check in CHECKS if check.name == "check_restore"]
FEW = Profile("few", 12, backbones=2)


def test_every_broken_clause_is_found_in_one_search_and_the_others_go_on() -> None:
    class Two(tokred.TokenReducer):
        """Keeps one too many, out of order."""

        strength = "keep"
        capabilities = tokred.Capabilities(keeps_order=True)

        def __init__(self, keep: float = 0.5) -> None:
            super().__init__(tokred.Schedule(at=(1,), keep=keep))

        def reduce(self, tokens: tokred.Tokens, probe: tokred.Probe, site: tokred.Site) -> tokred.Keep:
            count = min(site.left(tokens.patch_count) + 1, tokens.patch_count)
            return tokred.keep_top(tokens, tokens.patches.sum(-1, dtype=torch.float32), count, order="score")

    outcomes = search_steps(Two(), CHECKS, FEW)
    status = {outcome.check: outcome.status for outcome in outcomes}
    assert {name for name, found in status.items() if found == "failed"} == {
        "check_token_count_is_scheduled",
        "check_order_and_prefix_kept",
    }
    assert status["check_restore"] == "passed"


def test_methods_without_steps_are_skipped_with_that_reason() -> None:
    (outcome,) = search_steps(build("fewer_frames"), RESTORE, FEW)
    assert (outcome.status, outcome.detail) == ("skipped", "it takes no step on tokens")


def test_methods_for_windows_alone_get_windows() -> None:
    (outcome,) = search_steps(build("sta_window"), RESTORE, FEW)
    assert (outcome.status, outcome.detail) == ("passed", "12 drawn steps")


def test_the_strength_of_an_example_is_a_share_of_the_range() -> None:
    example = StepExample(grid=(1, 3, 4), strength=4)
    assert trial_of(build("tome"), example).reducer.spec == "tome:r=3"
    assert trial_of(build("tome:r=5"), StepExample(grid=(1, 3, 4))).reducer.spec == "tome:r=5"
    with pytest.raises(Refused, match="needs a backbone with window attention"):
        trial_of(build("sta_window:r=1"), StepExample(grid=(1, 3, 4))).run()


def test_backbones_of_random_shape_show_what_models_show() -> None:
    checks = [check for check in CHECKS if check.name in ("check_restore", "check_declarations")]
    found = search_backbones(build(f"{WRONG}:RestoresBackwards"), checks, FEW, run_check)
    assert {outcome.check: outcome.status for outcome in found} == {
        "check_restore": "failed",
        "check_declarations": "passed",
    }
