from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tokred
from tokred.registry import build
from tokred.testing import default_backbones, run_checks

WRONG = Path(__file__).parent / "wrong.py"
VALUES = Path(__file__).parent / "wrong_values.py"
ON_GPU = ("check_cuda_autocast", "check_cuda_graphs")


def test_a_method_that_autocast_breaks_is_caught(caught: Callable[..., str]) -> None:
    report = caught("MixesPrecisions", "check_autocast")
    assert "expected   a forward under autocast to bfloat16 on cpu" in report
    assert "dtype" in report


def test_soft_weights_may_round_under_autocast() -> None:
    (outcome,) = run_checks(build(f"{VALUES}:GoodMix"), default_backbones()[:1], only="check_autocast")
    assert outcome.status == "passed", outcome.detail


@pytest.mark.parametrize("check", ON_GPU)
def test_without_a_gpu_its_checks_are_skipped_with_that_reason(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (outcome,) = run_checks(build(f"{WRONG}:Good"), default_backbones()[:1], only=check)
    assert (outcome.status, outcome.detail) == ("skipped", "no GPU here")


@pytest.mark.gpu
@pytest.mark.parametrize("check", ON_GPU)
@pytest.mark.parametrize("method", list(tokred.list_methods().values()), ids=list(tokred.list_methods()))
def test_every_method_runs_on_a_gpu(method: type[tokred.TokenReducer], check: str) -> None:
    outcomes = run_checks(method, only=check)
    assert [outcome.detail for outcome in outcomes if outcome.status == "failed"] == []


@pytest.mark.gpu
def test_a_method_that_autocast_breaks_is_caught_on_a_gpu(caught: Callable[..., str]) -> None:
    assert "autocast to float16 on cuda" in caught("MixesPrecisions", "check_cuda_autocast")
