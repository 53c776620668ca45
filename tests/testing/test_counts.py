from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("OneTooMany", "check_token_count_is_scheduled", "48 patch tokens after the step at block 1 on 96"),
        ("ContentDecides", "check_token_count_is_scheduled", "patch tokens after the step"),
        ("Backwards", "check_strength_is_monotone", "with more strength"),
        ("SwallowsNonsense", "check_impossible_is_refused", "keep = 0 to be refused"),
        ("KnowsTheCount", "check_composition", "24 patch tokens after the step at block 1 on 48"),
    ],
)
def test_wrong_counts_are_caught(caught: Callable[..., str], name: str, check: str, says: str) -> None:
    assert says in caught(name, check)
