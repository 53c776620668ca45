from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import Specimen, about


@pytest.mark.parametrize(
    "wrong",
    about(
        "check_token_count_is_scheduled",
        "check_strength_is_monotone",
        "check_impossible_is_refused",
        "check_composition",
    ),
    ids=lambda wrong: wrong.reducer,
)
def test_wrong_counts_are_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)
