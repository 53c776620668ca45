"""What every test shares: one torch thread, repeatable property tests, and the optional reference material."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
# References that several rooms test against are modules of this folder.
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))

# No deadline: the first call of a torch operator is slow, and a loaded machine is not a failure.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("default", max_examples=25, **_COMMON)
settings.register_profile("ci", max_examples=25, derandomize=True, database=None, **_COMMON)
settings.register_profile("thorough", max_examples=500, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    import torch  # not at the top: the process that only hands out the tests does not need it

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_state() -> Iterator[None]:
    """Every test starts from the same global torch state and leaves it as it was, in whatever order the tests run."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _same_methods() -> Iterator[None]:
    """A method that a test registers is gone after it."""
    from tokred import registry

    registry.list_methods()  # the built-in ones are loaded by the first call, and stay
    before = dict(registry._METHODS)
    yield
    registry._METHODS.clear()
    registry._METHODS.update(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and real clips that may lie beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the reference material is not here: {folder}")
    return folder
