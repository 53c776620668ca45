from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from tokred.methods import DynamicViT, TopK
from tokred.testing.surroundings import (
    SWITCHES,
    changes,
    default_dtype,
    global_state,
    other_surroundings,
    seeded,
    switched,
    training,
)


def test_seeds_differ_in_every_generator_and_are_gone_after_it() -> None:
    before = global_state()
    drawn = []
    for seed in (1, 2):
        with seeded(seed):
            drawn.append((torch.initial_seed(), random.getstate()[1][0], np.random.get_state()[1][0]))  # noqa: NPY002
    assert all(a != b for a, b in zip(*drawn, strict=True)), "also in the first word, which seeds are read from"
    assert changes(before, global_state()) == []


def test_switches_are_set_to_a_known_state_and_back() -> None:
    torch.backends.cudnn.benchmark = True
    try:
        with switched(flipped=False):
            assert {name: read() for name, ((read, _), _) in SWITCHES.items()} == {
                n: f for n, (_, f) in SWITCHES.items()
            }
        with switched(flipped=True):
            assert not torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cudnn.benchmark
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cudnn.benchmark = False


def test_modes_and_defaults_hold_inside_alone() -> None:
    reducer = TopK().eval()
    with training(reducer), default_dtype(torch.float64):
        assert reducer.training
        assert torch.ones(1).dtype == torch.float64
    assert not reducer.training
    assert torch.ones(1).dtype == torch.float32


def test_a_training_form_is_declared_by_parameters_or_a_training_seed() -> None:
    assert any("in training mode" in where for where in other_surroundings(TopK().capabilities))
    assert not any("in training mode" in where for where in other_surroundings(DynamicViT().capabilities))


def test_changes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = global_state()
    monkeypatch.setitem(os.environ, "A_VARIABLE_OF_THIS_TEST", "1")
    with torch.autograd.set_detect_anomaly(True):
        assert changes(before, global_state()) == ["anomaly detection", "environment variables"]
