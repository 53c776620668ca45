"""Reducers that break the contract, by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import spec

from tokred.registry import build
from tokred.testing import Outcome, default_backbones, run_checks

Caught = Callable[[str, str], str]


@pytest.fixture
def caught() -> Caught:
    """Runs one check on one of the wrong reducers: the report of the failure, or a failing test."""

    def run(name: str, check: str, backbone: str = "video") -> str:
        reducer = build(spec(name))
        chosen = [b for b in default_backbones() if b.name == backbone]
        (outcome,) = (o for o in run_checks(reducer, chosen, only=check))
        assert isinstance(outcome, Outcome)
        assert outcome.status == "failed", f"{check} lets {name} through: {outcome.detail or outcome.status}"
        assert outcome.check == check
        return outcome.detail

    return run
