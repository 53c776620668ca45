"""`import tokred` costs torch and nothing else: what only some commands use is loaded by those commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "pandas",
    "seaborn",
    "matplotlib",
    "av",
    "timm",
    "torchvision",
    "transformers",
    "scipy",
    "fvcore",
    "pydantic",
    "typer",
    "rich",
)


def loaded_after(statement: str) -> set[str]:
    """Names of the top-level packages in memory after `statement` in a fresh interpreter."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    # -I: neither the current folder nor the user's environment adds modules
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.fixture(scope="module")
def with_torch() -> set[str]:
    return loaded_after("import torch")


CALLS = "import tokred; print(tokred.sweep, tokred.show)"


@pytest.mark.parametrize("statement", ["import tokred", "import tokred.methods", CALLS])
def test_import_loads_no_heavy_package(statement: str, with_torch: set[str]) -> None:
    extra = loaded_after(statement) - with_torch
    assert "tokred" in extra
    assert not extra & set(HEAVY), f"`{statement}` loads {sorted(extra & set(HEAVY))}"
