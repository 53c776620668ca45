"""The small counter agrees with torch's own on every product it knows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tokred.macs import MacCounter

A, B, W = torch.randn(2, 5, 4), torch.randn(2, 4, 3), torch.randn(6, 4)
OPERATIONS: dict[str, Callable[[], Tensor]] = {
    "matmul": lambda: torch.matmul(A, B),
    "@": lambda: A @ B,
    "bmm": lambda: torch.bmm(A, B),
    "mm": lambda: torch.mm(A[0], B[0]),
    "baddbmm": lambda: torch.baddbmm(torch.zeros(2, 5, 3), A, B),
    "addmm": lambda: torch.addmm(torch.zeros(5, 3), A[0], B[0]),
    "linear": lambda: F.linear(A, W),
    "einsum": lambda: torch.einsum("bij,bjk->bik", A, B),
    "einsum with dots": lambda: torch.einsum("...ij,...jk->...ik", A, B),
    "nothing": lambda: A.softmax(-1) + A.sort(-1).values,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_it_agrees_with_torch(name: str) -> None:
    with FlopCounterMode(display=False) as theirs:
        OPERATIONS[name]()
    ours = MacCounter()
    with ours:
        OPERATIONS[name]()
    assert 2 * ours.macs == theirs.get_total_flops()


def test_fused_attention_counts_both_products() -> None:
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 7, 4), torch.randn(2, 3, 7, 6)
    counter = MacCounter()
    with counter:
        F.scaled_dot_product_attention(q, k, v)
    assert counter.macs == 2 * 3 * 5 * 7 * (4 + 6)


def test_shapes_alone_are_enough() -> None:
    counter = MacCounter()
    with counter:
        torch.empty(2, 5, 4, device="meta") @ torch.empty(2, 4, 3, device="meta")
    assert counter.macs == 2 * 5 * 4 * 3
