from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from testing.zoo import Specimen, about

from tokred.testing.memory import Largest


@pytest.mark.parametrize("wrong", about("check_memory"), ids=lambda wrong: wrong.reducer)
def test_memory_that_is_held_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


def test_the_largest_tensor_is_found_and_views_of_small_ones_are_not_counted() -> None:
    x = torch.ones(4)
    with Largest() as largest:
        x[:, None].expand(4, 1000)
        torch.outer(x, x)
    assert largest.elements == 16
