from __future__ import annotations

import pytest
import torch

from tokred.backbones.convert.errors import CheckpointError
from tokred.backbones.convert.fit import check_fit, condense


def test_the_same_names_and_shapes_fit() -> None:
    check_fit("file", {"a": torch.zeros(2)}, {"a": torch.ones(2)})


def test_missing_unexpected_and_wrongly_shaped_keys_come_in_one_line() -> None:
    given = {"b": torch.zeros(2), "shape": torch.zeros(3)}
    expected = {"a": torch.zeros(2), "a2": torch.zeros(1), "shape": torch.zeros(4, 1)}
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        check_fit("x.pth: a checkpoint", given, expected, ["try that"])
    assert str(caught.value) == (
        "x.pth: a checkpoint does not fit the model: 2 missing: a, a2; 1 unexpected: b; "
        "1 of another shape: shape (file (3,), model (4, 1)); try that"
    )
    assert caught.value.missing == ("a", "a2")
    assert caught.value.unexpected == ("b",)
    assert caught.value.misshaped == ("shape",)


def test_a_kind_of_mismatch_that_does_not_occur_is_not_named() -> None:
    with pytest.raises(CheckpointError, match=r"1 missing: a$"):
        check_fit("f", {}, {"a": torch.zeros(1)})


def test_long_lists_put_block_numbers_together_and_lose_none() -> None:
    names = [f"blocks.{i}.norm1.{leaf}" for i in range(7) for leaf in ("weight", "bias")] + ["head.weight"]
    assert condense(names) == [
        "blocks.{0,1,2,3,4,5,6}.norm1.weight",
        "blocks.{0,1,2,3,4,5,6}.norm1.bias",
        "head.weight",
    ]
    assert condense(names[:12]) == names[:12]
