"""The order of the house: what lies where, how long files are, and what no file says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {"tokred", "methods", "experiments", "notebooks", "tests", "benchmarks", "docs"}
FILES = {"pyproject.toml", "README.md", "Makefile", "LICENSE"}
LEFT_BEHIND = {"results", "runs", "build", "dist"}  # made by running and building, ignored by git

# Tests of the project, or of one folder, as a whole: they mirror no single source file.
WHOLE = {
    *("test_demo", "test_house", "test_lean_import", "test_notebooks", "test_packaging", "test_readme"),
    *("data/test_real_clips", "run/test_shipped_weights"),
}

# Source files, or folders, without test files of their own, and why that is right.
NO_MIRROR: dict[str, str] = {
    "tokred/cli/options.py": "each refusal of an option is a line in tests/cli/test_app.py",
    "tokred/data/source.py": "the interface; each source has its tests",
    "tokred/run/parity/": "replayed against golden vectors and independent references in tests/parity",
    "tokred/run/profile.py": "its numbers are read from the command in tests/cli/test_profile.py",
    "tokred/run/progress.py": "a protocol, and one that says nothing",
    "tokred/run/results.py": "written and read back in tests/run/test_compare.py",
    "tokred/run/scores.py": "seen through the rows of tests/run/test_compare.py",
    "tokred/run/settings.py": "a record; its name for a run folder is tested in tests/run/test_compare.py",
    "tokred/run/train_": "the parts of training are tested together in tests/run/test_train.py",
}

# One letter in brackets, so that this list is not itself what it looks for.
FORBIDDEN = {
    "unfinished work": r"\bTO[D]O\b|\bFIX[M]E\b|\bX[X]X\b|raise NotImplemented[E]rror",
    "a folder of one machine": r"(?<![\w.])/(?:hom[e]|roo[t]|wor[k]|User[s])/\w",
    "a number in a tracker instead of the reason": r"(?i)\bissue[s]? #?\d",
    "its own making": r"(?i)\b(?:ai|coding) agent[s]?\b|\b(?:this|previous) sessio[n]\b",
    "a pickle that may run code": r"torch\.load\((?![^\n]*weights_only=True)|weights_only=Fals[e]",
    "YAML that may build objects": r"yaml\.(?:unsafe_)?loa[d]\(",
}


def sources(*folders: str) -> Iterator[Path]:
    """Every Python file below the folders, each once: tokred/methods is a link to methods."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).parts
            if parts[:2] != ("tokred", "methods") and "__pycache__" not in parts:
                yield path


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every file that git tracks or would track; all text files where there is no git."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        paths = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        paths = [*(ROOT / name for name in FILES), *sources(*FOLDERS)]
    for path in paths:
        if path.is_symlink() or not path.is_file():
            continue
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT).as_posix(), content.decode("utf-8")


def test_top_level_is_exactly_what_is_agreed() -> None:
    visible = {name for name in os.listdir(ROOT) if not name.startswith(".")}
    assert visible - LEFT_BEHIND == FOLDERS | FILES


def test_ci_is_one_executable_file() -> None:
    assert os.listdir(ROOT / ".ci") == ["run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make lint test" in (ROOT / ".ci" / "run").read_text()


def test_methods_are_a_link_inside_the_package() -> None:
    assert os.readlink(ROOT / "tokred" / "methods") == os.path.join("..", "methods")


def test_no_source_file_is_long() -> None:
    product = sources("tokred", "methods", "benchmarks")
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in product}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def mirrored(test: Path) -> bool:
    """Does tests/a/test_b.py, or tests/a/test_b_aspect.py, stand for a source file or package a/b?"""
    relative = test.relative_to(ROOT / "tests")
    words = test.stem.removeprefix("test_").split("_")
    for end in range(len(words), 0, -1):
        name = "_".join(words[:end])
        for base in (ROOT / "tokred", ROOT):
            place = base / relative.parent / name
            if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file():
                return True
    return False


def test_every_test_file_mirrors_a_source_file() -> None:
    tests = [path.relative_to(ROOT / "tests") for path in sources("tests") if path.name.startswith("test_")]
    names = {test.with_suffix("").as_posix() for test in tests if test.parts[0] not in {"parity", "plugin"}}
    strays = {name for name in names if not mirrored(ROOT / "tests" / name)}
    assert strays - WHOLE == set(), "a test file is named after the source file that it tests"
    assert names >= WHOLE, "these are gone: take them out of WHOLE"


def has_mirror(source: Path) -> bool:
    """Has a/b/c.py a file tests/a/b/test_c.py or tests/a/b/test_c_aspect.py, or its folder a tests/a/test_b.py?"""
    relative = source.relative_to(ROOT)
    folder = ROOT / "tests" / Path(*relative.parts[1:-1] if relative.parts[0] == "tokred" else relative.parts[:-1])
    own = [folder / f"test_{source.stem}.py", *folder.glob(f"test_{source.stem}_*.py")]
    return any(test.is_file() for test in [*own, folder.parent / f"test_{folder.name}.py"])


def test_every_source_file_has_a_test_file_or_a_reason() -> None:
    modules = [path for path in sources("tokred", "methods") if path.name not in {"__init__.py", "__main__.py"}]
    bare = {path.relative_to(ROOT).as_posix() for path in modules if not has_mirror(path)}
    excused = {name for name in bare if any(name.startswith(place) for place in NO_MIRROR)}
    assert bare - excused == set(), "write the test file, or give the reason in NO_MIRROR"
    needless = {place for place in NO_MIRROR if not any(name.startswith(place) for name in bare)}
    assert needless == set(), "these have test files by now: take them out of NO_MIRROR"


@pytest.mark.parametrize("meaning", FORBIDDEN)
def test_no_file_speaks_of(meaning: str) -> None:
    pattern = re.compile(FORBIDDEN[meaning])
    found = [f"{name}: {hit.group()!r}" for name, text in texts() for hit in pattern.finditer(text)]
    assert found == []


def test_the_product_needs_nothing_beside_the_checkout() -> None:
    product = ("tokred/", "methods/", "experiments/", "notebooks/", "README.md", "Makefile", "benchmarks/")
    found = [name for name, text in texts() if name.startswith(product) and "../shared" in text]
    assert found == []
