from __future__ import annotations

import pytest
import torch
from torch import nn

from tokred.backbones.convert.digest import weights_digest


def state() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.tensor(2.0)}


def test_order_and_memory_layout_do_not_matter() -> None:
    turned = dict(reversed(state().items()))
    turned["a"] = turned["a"].t().contiguous().t()
    assert weights_digest(turned) == weights_digest(state())


@pytest.mark.parametrize(
    "change",
    [
        {"a": torch.arange(6, dtype=torch.float32).reshape(3, 2)},
        {"a": torch.arange(6, dtype=torch.int32).reshape(2, 3)},
        {"a": torch.arange(6, dtype=torch.float64).reshape(2, 3)},
        {"b": torch.tensor(2.0).nextafter(torch.tensor(3.0))},
        {"c": torch.zeros(0)},
    ],
    ids=["shape", "integer", "precision", "last bit", "one more"],
)
def test_any_change_changes_it(change: dict[str, torch.Tensor]) -> None:
    assert weights_digest({**state(), **change}) != weights_digest(state())


def test_equal_bytes_of_two_types_differ() -> None:
    digests = {weights_digest({"a": torch.zeros(2, dtype=dtype)}) for dtype in (torch.float16, torch.bfloat16)}
    assert len(digests) == 2


def test_renaming_changes_it() -> None:
    assert weights_digest({"a": torch.zeros(1), "b": torch.ones(1)}) != weights_digest(
        {"a": torch.ones(1), "b": torch.zeros(1)}
    )


def test_a_module_is_its_state_dict_in_any_precision() -> None:
    module = nn.Linear(3, 2).to(torch.bfloat16)
    assert weights_digest(module) == weights_digest(module.state_dict())
    assert len(weights_digest(module)) == 64


def test_weights_without_values_are_refused() -> None:
    with pytest.raises(ValueError, match="weight is on the meta device"):
        weights_digest({"weight": torch.empty(2, device="meta")})
