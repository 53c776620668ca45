"""Budgets by the clock: the search is right whatever the clock says, and is kept for a run that goes on."""

from __future__ import annotations

import pytest
import torch

import tokred
from tokred.backbones import adapter_for
from tokred.budget import BudgetError, macs_of
from tokred.measure.flops import count, unreduced_plan
from tokred.run.timed_budget import TimedBudget


@pytest.fixture
def host():
    return tokred.create_backbone("videomae_vit_nano").eval()


def budget(host, ratio, folder=None) -> TimedBudget:
    geometry = adapter_for(host).geometry(host)
    return TimedBudget(host, geometry, torch.zeros(1, 3, 16, 64, 64), folder=folder, ratio=ratio)


def share_of(host, extra: float = 0.0):
    """A clock that goes by the multiply-adds, and a constant on top."""
    geometry = adapter_for(host).geometry(host)
    full = count(geometry, unreduced_plan(geometry)).macs
    return lambda reducer: extra + macs_of(reducer, geometry).macs / full


@pytest.mark.parametrize("method", ["sta", "topk"])
def test_the_nearest_setting_is_found(host, method) -> None:
    timed = budget(host, share_of(host))
    found = timed(tokred.build(method), timed.geometry, 0.6)
    assert found.share == pytest.approx(0.6, abs=0.02)
    assert "solved by the clock" in found.notes[0]


def test_overhead_asks_for_a_stronger_setting_than_multiply_adds_would(host) -> None:
    timed = budget(host, share_of(host, extra=0.2))
    assert timed(tokred.build("sta"), timed.geometry, 0.6).share == pytest.approx(0.4, abs=0.02)


def test_a_share_that_cannot_be_reached_is_refused_with_the_time(host) -> None:
    timed = budget(host, lambda reducer: 0.8)
    with pytest.raises(BudgetError, match=r"cannot go down to 50% of the time.*80%"):
        timed(tokred.build("sta"), timed.geometry, 0.5)


def test_what_was_found_is_used_again(host, tmp_path) -> None:
    first = budget(host, share_of(host), tmp_path)(tokred.build("sta"), budget(host, None).geometry, 0.6)

    def broken(reducer):
        raise AssertionError("measured again")

    again = budget(host, broken, tmp_path)(tokred.build("sta"), budget(host, None).geometry, 0.6)
    assert again.reducer.spec == first.reducer.spec


def test_the_clock_itself_runs(host) -> None:
    timed = budget(host, None)
    timed.seconds = 0.2
    assert 0.05 < timed._measured(tokred.build("sta:r=30")) < 5
