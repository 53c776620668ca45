"""Every notebook runs from top to bottom."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LARGEST = 400_000
"""Bytes of a file with its pictures: it is read in a browser and kept in every clone."""


def _sources(path: Path, kind: str) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_there_are_six() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "quick_start",
        "write_and_register",
        "sta_ablations",
        "agreement",
        "look_inside",
        "speed",
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs(path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "--nbmake",
        "--nbmake-timeout=600",
        "-p",
        "no:cacheprovider",
        "-q",
        str(path),
    ]
    done = subprocess.run(words, capture_output=True, text=True, cwd=FOLDER, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_was_saved_without_an_error(path: Path) -> None:
    outputs = [out for cell in json.loads(path.read_text())["cells"] for out in cell.get("outputs", [])]
    assert outputs, "a notebook is committed with its outputs"
    assert not [out for out in outputs if out["output_type"] == "error"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_begins_with_what_one_learns_and_stays_small(path: Path) -> None:
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    title, _, rest = "".join(first["source"]).partition("\n")
    assert first["cell_type"] == "markdown"
    assert title.startswith("# ")
    assert rest.strip()
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_uses_the_public_api_only(path: Path) -> None:
    tree = ast.parse("\n".join(_sources(path, "code")))
    imported = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    read = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    parts = [part for name in (*imported, *read) for part in name.split(".")]
    hidden = [part for part in parts if part.startswith("_") and not part.endswith("__")]
    assert not hidden
    assert any(name.split(".")[0] == "tokred" for name in imported)
