from __future__ import annotations

import pytest
import torch

from tokred.precision import full_precision, wide


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_numbers_become_float32(dtype: torch.dtype) -> None:
    assert wide(torch.ones(2, dtype=dtype)).dtype == torch.float32


def test_float64_stays() -> None:
    x = torch.ones(2, dtype=torch.float64)
    assert wide(x) is x


def test_products_stay_in_float32_inside_autocast() -> None:
    x = torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        with full_precision(x):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_it_does_nothing_without_autocast_and_on_the_meta_device() -> None:
    with full_precision(torch.ones(1)), full_precision(torch.ones(1, device="meta")):
        assert not torch.is_autocast_enabled("cpu")
