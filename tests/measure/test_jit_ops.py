from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tokred.measure.handles import fvcore_macs
from tokred.measure.jit_ops import HANDLES, ZERO_OPS, einsum_macs


class Run(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)


def macs(function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> int:
    return fvcore_macs(Run(function), tuple(torch.zeros(s) for s in shapes)).macs


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, ((3, 4), (4, 5)), 3 * 4 * 5),
        (torch.matmul, ((3, 4), (4,)), 3 * 4),
        (torch.matmul, ((4,), (4, 5)), 4 * 5),
        (torch.matmul, ((4,), (4,)), 4),
        (torch.matmul, ((3, 4), (7, 4, 5)), 7 * 3 * 4 * 5),
        (torch.matmul, ((7, 3, 4), (4, 5)), 7 * 3 * 4 * 5),
        (torch.matmul, ((2, 1, 3, 4), (5, 4, 6)), 2 * 5 * 3 * 4 * 6),
        (torch.mv, ((3, 4), (4,)), 12),
        (torch.dot, ((4,), (4,)), 4),
        (torch.bmm, ((2, 3, 4), (2, 4, 5)), 120),
        (torch.mm, ((3, 4), (4, 5)), 60),
        (torch.addmm, ((3, 5), (3, 4), (4, 5)), 60),
        (torch.baddbmm, ((2, 3, 5), (2, 3, 4), (2, 4, 5)), 120),
        (torch.addbmm, ((3, 5), (2, 3, 4), (2, 4, 5)), 120),
        (torch.addmv, ((3,), (3, 4), (4,)), 12),
    ],
)
def test_products_count_entries_times_summed_length(
    function: Callable[..., Tensor], shapes: tuple[tuple[int, ...], ...], expected: int
) -> None:
    assert macs(function, *shapes) == expected


def test_rms_norm_counts_like_the_other_norms() -> None:
    x = torch.zeros(2, 3, 8)
    assert fvcore_macs(nn.RMSNorm(8), x).macs == 5 * x.numel()
    assert fvcore_macs(nn.RMSNorm(8, elementwise_affine=False), x).macs == 4 * x.numel()


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bnc,bmc->bnm", [[2, 3, 5], [2, 7, 5]], 2 * 3 * 5 * 7),
        ("bhqd,bhkd->bhqk", [[2, 3, 4, 5], [2, 3, 6, 5]], 2 * 3 * 4 * 5 * 6),
        ("ij,jk", [[3, 4], [4, 5]], 60),
        ("i,i", [[6], [6]], 6),
        ("...nc,...mc->...nm", [[2, 9, 3, 5], [9, 7, 5]], 2 * 9 * 3 * 5 * 7),
        ("bn,bnc->bnc", [[2, 3], [2, 3, 4]], 0),
        ("i,j->ij", [[3], [4]], 0),
        ("bnc->bn", [[2, 3, 4]], 0),
        ("bn,mn->bm", [[2, 1], [4, 6]], 2 * 4 * 6),
    ],
)
def test_einsum_counts_the_lengths_of_all_indices_when_something_is_summed(
    equation: str, shapes: list[list[int]], expected: int
) -> None:
    assert einsum_macs(equation, shapes) == expected


@given(*(st.integers(2, 9),) * 4)
def test_einsum_equals_torchs_own_count(b: int, n: int, m: int, c: int) -> None:
    x, y = torch.zeros(b, n, c), torch.zeros(b, m, c)
    with FlopCounterMode(display=False) as mode:
        torch.einsum("bnc,bmc->bnm", x, y)
    assert 2 * einsum_macs("bnc,bmc->bnm", [[b, n, c], [b, m, c]]) == mode.get_total_flops()


def test_einsum_is_counted_in_a_trace() -> None:
    assert macs(lambda x, y: torch.einsum("bnc,bmc->bnm", x, y), (2, 3, 5), (2, 7, 5)) == 210


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [("ab,bc,cd->ad", [[2, 3], [3, 4], [4, 5]], "3 operands"), ("ab,bc->ac", [[2, 3, 4], [3, 4]], "does not fit")],
)
def test_an_einsum_without_one_cost_is_refused(equation: str, shapes: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        einsum_macs(equation, shapes)


def test_no_operator_is_both_counted_and_free() -> None:
    assert not ZERO_OPS & set(HANDLES)
