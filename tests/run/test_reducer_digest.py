"""What a reducer is besides its settings: another source or other parameters are another reducer."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

import tokred
from tokred.run.reducer_digest import reducer_digest

MINE = """
import torch
from tokred.methods import TopK

class Mine(TopK):
    def __init__(self, keep: float = 0.5) -> None:
        super().__init__(keep)
        self.sign = 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_own_methods_are_named_by_their_settings() -> None:
    for spec in ("none", "sta:r=3", "tome:r=2+topk:keep=0.5", "eventful:r=4"):
        assert reducer_digest(tokred.build(spec)) is None


def test_parameters_count() -> None:
    assert reducer_digest(nn.Identity()) is None
    assert reducer_digest(nn.Linear(2, 2)) is not None


def test_a_file_is_read_anew_when_it_changed_and_counts_as_it_was_loaded(file: Path) -> None:
    first = tokred.build(f"{file}:Mine:keep=0.25")
    again = tokred.build(f"{file}:Mine:keep=0.75")
    assert reducer_digest(first) == reducer_digest(again) is not None
    file.write_text(MINE.replace("= 1", "= -1"))
    edited = tokred.build(f"{file}:Mine:keep=0.25")
    assert (first.sign, edited.sign) == (1, -1)
    assert reducer_digest(edited) != reducer_digest(first), "old numbers would be taken for the new source"
    assert reducer_digest(first) == reducer_digest(again)


def test_the_same_text_elsewhere_is_the_same_reducer(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "copy.py"
    other.write_text(MINE)
    assert reducer_digest(tokred.build(f"{other}:Mine")) == reducer_digest(tokred.build(f"{file}:Mine"))


def test_a_part_of_a_composition_counts(file: Path) -> None:
    joined = tokred.build(f"tome:r=2+{file}:Mine")
    before = reducer_digest(joined)
    file.write_text(MINE + "\n# edited\n")
    assert before is not None
    assert reducer_digest(tokred.build(f"tome:r=2+{file}:Mine")) != before


def test_a_package_counts_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests = []
    for name, helper in (("packed_one", "A = 1"), ("packed_two", "A = 2"), ("packed_three", "A = 1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "helper.py").write_text(helper)
        (tmp_path / name / "mine.py").write_text(MINE)
        digests.append(reducer_digest(tokred.build(f"{name}.mine:Mine")))
    assert digests[0] == digests[2] != digests[1]


def test_a_class_without_a_file_counts_by_what_it_does() -> None:
    found = []
    for sign in (1, -1, 1):
        space: dict[str, object] = {"__name__": "__main__"}
        exec(MINE.replace("= 1", f"= {sign}"), space)
        kind = space["Mine"]
        assert isinstance(kind, type)
        found.append(reducer_digest(kind()))
    assert found[0] == found[2] != found[1]
