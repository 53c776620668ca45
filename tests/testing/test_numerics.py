from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import Specimen, about


@pytest.mark.parametrize(
    "wrong",
    about("check_batch_independence", "check_dtypes", "check_degenerate_inputs"),
    ids=lambda wrong: wrong.reducer,
)
def test_wrong_arithmetic_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)
