from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tokred.measure.memory import highest, peak_memory


def test_the_peak_counts_what_lives_at_the_same_time() -> None:
    def call() -> torch.Tensor:
        first = torch.zeros(1_000_000)
        second = torch.zeros(2_000_000)
        del first
        third = torch.zeros(500_000)
        return torch.cat([second[:1], third[:1]])

    assert peak_memory(call).peak_bytes == 12_000_000


def test_what_lived_before_is_not_counted() -> None:
    weights = torch.zeros(3_000_000)
    assert peak_memory(lambda: weights[:10] + 1).peak_bytes < 1000


def test_the_result_repeats() -> None:
    q = torch.randn(1, 2, 64, 16)
    assert len({peak_memory(lambda: F.scaled_dot_product_attention(q, q, q)).peak_bytes for _ in range(2)}) == 1


def test_a_dense_attention_map_shows() -> None:
    n = 512
    q = torch.randn(1, 2, n, 16)
    dense = peak_memory(lambda: (q @ q.transpose(-1, -2)).softmax(dim=-1) @ q)
    assert dense.peak_bytes >= 2 * 2 * n * n * 4
    assert dense.peak_mib == dense.peak_bytes / 2**20


def test_the_result_names_how_it_was_measured() -> None:
    result = peak_memory(lambda: torch.zeros(10))
    assert "CPU allocator" in result.method
    assert result.resident_bytes is None


def test_measuring_prints_nothing_and_leaves_the_environment_alone(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
    before = dict(os.environ)
    peak_memory(lambda: torch.zeros(10))
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_call_comes_through() -> None:
    with pytest.raises(ZeroDivisionError, match="division"):
        peak_memory(lambda: 1 / 0)


def test_other_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="'meta'; allowed: cpu, cuda"):
        peak_memory(lambda: None, device="meta")


@given(st.lists(st.integers(-100, 100)))
def test_the_highest_running_sum_bounds_every_running_sum(changes: list[int]) -> None:
    sums = [sum(changes[:i]) for i in range(len(changes) + 1)]
    assert highest(changes) == max(sums)
