"""The number of torch threads inside a block, and after it."""

from __future__ import annotations

import pytest
import torch

from tokred.measure.threads import torch_threads


@pytest.mark.parametrize("number", [1, 3])
def test_threads_inside_and_as_before_after_an_error(number: int) -> None:
    seen = []

    @torch_threads(number)
    def fails() -> None:
        seen.append(torch.get_num_threads())
        raise RuntimeError("inside")

    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"):
        fails()
    assert seen == [number]
    assert torch.get_num_threads() == before


def test_as_a_decorator_each_call_restores() -> None:
    @torch_threads(3)
    def inside() -> int:
        return torch.get_num_threads()

    before = torch.get_num_threads()
    assert [inside(), inside(), torch.get_num_threads()] == [3, 3, before]
