from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from testing.zoo import Specimen, about

from tokred.testing.state import equal


@pytest.mark.parametrize(
    "wrong",
    about(
        "check_determinism",
        "check_no_global_state",
        "check_no_state_between_forwards",
        "check_reset_forgets",
        "check_tokens_untouched",
        "check_threads",
    ),
    ids=lambda wrong: f"{wrong.reducer}-{wrong.check}",
)
def test_state_that_does_not_belong_to_one_forward_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    try:
        assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)
    finally:
        torch.nn.modules.module._global_forward_hooks.clear()  # what Hooks leaves, by its nature


class Plain:
    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])


def test_equality_looks_into_containers_tensors_and_plain_objects() -> None:
    carried = {"a": [torch.ones(2), (1, "x")], "b": Plain(1.0)}
    assert equal(carried, deepcopy(carried))
    assert not equal(carried, {**carried, "b": Plain(2.0)})
    assert not equal([torch.ones(2)], [torch.zeros(2)])
    assert not equal({"a": 1}, {"a": 1, "b": 2})
