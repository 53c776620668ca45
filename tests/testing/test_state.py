from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch

from tokred.testing.state import _equal


@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("RollsDice", "check_determinism", "the same decisions on a second run"),
        ("RollsDice", "check_no_global_state", "torch's random state"),
        ("StirsPython", "check_no_global_state", "Python's random state"),
        ("Hooks", "check_no_global_state", "_global_forward_hooks"),
        ("Remembers", "check_no_state_between_forwards", "changes in last"),
        ("WritesInPlace", "check_tokens_untouched", "changed in place"),
        ("CountsThreads", "check_threads", "on one thread and on two"),
        ("SharesABoard", "check_threads", "forwards that run at once"),
    ],
)
def test_state_that_does_not_belong_to_one_forward_is_caught(
    caught: Callable[..., str], name: str, check: str, says: str
) -> None:
    try:
        assert says in caught(name, check)
    finally:
        torch.nn.modules.module._global_forward_hooks.clear()  # what Hooks leaves, by its nature


class Plain:
    def __init__(self, value: float) -> None:
        self.value = torch.tensor([value])


def test_equality_looks_into_containers_tensors_and_plain_objects() -> None:
    carried = {"a": [torch.ones(2), (1, "x")], "b": Plain(1.0)}
    assert _equal(carried, deepcopy(carried))
    assert not _equal(carried, {**carried, "b": Plain(2.0)})
    assert not _equal([torch.ones(2)], [torch.zeros(2)])
    assert not _equal({"a": 1}, {"a": 1, "b": 2})
