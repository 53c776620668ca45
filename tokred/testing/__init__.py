"""The contract tests that every reducer passes, also yours: plain torch, no pytest needed for ``check_reducer``."""

from __future__ import annotations

from tokred.testing.case import Case
from tokred.testing.check import Check
from tokred.testing.contract import CHECKS, check_reducer, parametrize_with_checks, run_checks
from tokred.testing.failures import CheckFailed, Outcome
from tokred.testing.hosts import Backbone, default_backbones

__all__ = [
    "CHECKS",
    "Backbone",
    "Case",
    "Check",
    "CheckFailed",
    "Outcome",
    "check_reducer",
    "default_backbones",
    "parametrize_with_checks",
    "run_checks",
]
