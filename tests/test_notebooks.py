"""Every notebook runs from top to bottom."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tokred

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PAGE = FOLDER.parent / "docs" / "python.md"
ORDINARY = {"IPython", "PIL", "matplotlib", "numpy", "pandas", "torch"}
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


def _documented() -> dict[str, set[str]]:
    """Modules and names in the table of docs/python.md; of two modules everything that they export."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    found = {module: set(re.findall(r"`(\w+)`", names)) for module, names in rows}
    for whole in ("tokred.methods", "tokred.testing"):
        found[whole] |= set(importlib.import_module(whole).__all__)
    return found


def _strangers(source: str) -> set[str]:
    """What code takes from tokred that docs/python.md does not name, and libraries that are not ordinary ones."""
    public = _documented()
    tree = ast.parse(source)
    used: set[tuple[str, str]] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            used |= {(node.module or "", alias.name) for alias in node.names}
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if re.fullmatch(r"tokred[.\w]*", owner) and f"{owner}.{node.attr}" not in public:
                used.add((owner, node.attr))
    own = {(module, name) for module, name in used if module.partition(".")[0] == "tokred"}
    strange = {f"{module}.{name}" for module, name in own if name not in public.get(module, ())}
    for module in modules:
        top = module.partition(".")[0]
        if module not in public if top == "tokred" else top not in {*ORDINARY, *sys.stdlib_module_names}:
            strange.add(module)
    return strange


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_uses_the_public_api_only(path: Path) -> None:
    code = "\n".join(_sources(path, "code"))
    assert not _strangers(code)
    assert "import tokred" in code


@pytest.mark.parametrize(
    ("code", "stranger"),
    [
        ("from tokred.run.engine import make_engine", "tokred.run.engine.make_engine"),
        ("import tokred.run.sweep", "tokred.run.sweep"),
        ("import tokred\ntokred.run.sweep.open_sweep()", "tokred.run"),
        ("import tokred\ntokred.registry", "tokred.registry"),
        ("from tokred.budget import _bisect", "tokred.budget._bisect"),
        ("from tokred.report import write_run", "tokred.report.write_run"),
        ("import tokred.testing\ntokred.testing.stand_in", "tokred.testing.stand_in"),
        ("import scipy", "scipy"),
    ],
)
def test_what_is_not_public_is_seen(code: str, stranger: str) -> None:
    assert stranger in _strangers(code)


def test_public_names_are_there_and_say_what_they_do() -> None:
    documented = _documented()
    documented["tokred.testing"].discard("__all__")
    assert documented["tokred"] == set(tokred.__all__)
    for module, names in documented.items():
        found = {name: getattr(importlib.import_module(module), name, None) for name in names}
        bare = {name for name, thing in found.items() if thing is None or (callable(thing) and not thing.__doc__)}
        assert not bare, module
