"""The contract tests that every reducer passes, also yours: plain torch; with hypothesis, on drawn examples too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokred.testing.case import Case
from tokred.testing.check import Check
from tokred.testing.contract import CHECKS, check_reducer, check_step, run_checks
from tokred.testing.example import StepExample
from tokred.testing.failures import CheckFailed, Outcome
from tokred.testing.hosts import default_backbones
from tokred.testing.profiles import PROFILES, Profile, profile_of
from tokred.testing.pytests import parametrize_with_checks
from tokred.testing.shapes import Backbone, ImageShape, VideoShape, WindowShape
from tokred.testing.trial import Refused

if TYPE_CHECKING:
    from tokred.testing import strategies
    from tokred.testing.strategies import attention_maps, backbones, features, grids, schedules, steps, token_sets

STRATEGIES = ("attention_maps", "backbones", "features", "grids", "schedules", "steps", "token_sets")

__all__ = [
    "CHECKS",
    "PROFILES",
    "Backbone",
    "Case",
    "Check",
    "CheckFailed",
    "ImageShape",
    "Outcome",
    "Profile",
    "Refused",
    "StepExample",
    "VideoShape",
    "WindowShape",
    "attention_maps",
    "backbones",
    "check_reducer",
    "check_step",
    "default_backbones",
    "features",
    "grids",
    "parametrize_with_checks",
    "profile_of",
    "run_checks",
    "schedules",
    "steps",
    "strategies",
    "token_sets",
]


def __getattr__(name: str) -> Any:
    # Strategies need hypothesis: loaded when first used, so that the checks work without it. Each check is here too,
    # under its own name.
    if name == "strategies" or name in STRATEGIES:
        import importlib

        module = importlib.import_module("tokred.testing.strategies")
        return module if name == "strategies" else getattr(module, name)
    for check in CHECKS:
        if check.name == name:
            return check
    raise AttributeError(f"module 'tokred.testing' has no attribute {name!r}")
