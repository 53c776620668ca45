from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("LooksAtTheBatch", "check_batch_independence", "sample 0 alone to be reduced as in a batch of 3"),
        ("CutsTheGradient", "check_gradients", "a gradient on the input"),
        ("OnlyFloat32", "check_dtypes", "same dtype"),
        ("DividesByZero", "check_degenerate_inputs", "a model whose weights are all zero"),
    ],
)
def test_wrong_arithmetic_is_caught(caught: Callable[..., str], name: str, check: str, says: str) -> None:
    assert says in caught(name, check)
