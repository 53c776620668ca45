"""The page about the contract and the contract name the same checks."""

from __future__ import annotations

import re
from pathlib import Path

from tokred.testing import CHECKS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contract.md"
ROW = re.compile(r"^\| `(check_\w+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_every_check_has_one_row_and_every_row_a_check() -> None:
    rows = [name for name, _, _ in ROW.findall(PAGE.read_text())]
    assert len(rows) == len(set(rows))
    assert sorted(rows) == sorted(check.name for check in CHECKS)


def test_every_row_gives_one_sentence_and_a_reason() -> None:
    for name, clause, reason in ROW.findall(PAGE.read_text()):
        assert clause.endswith("."), name
        assert not re.search(r"\. [A-Z]", clause), f"{name}: more than one sentence"
        assert len(reason) > 20, name


def test_threads_are_cited_in_one_way() -> None:
    text = PAGE.read_text()
    assert len(re.findall(r"`[\w.-]+/[\w.-]+#\d+`", text)) >= 30
    assert not re.search(r"github\.com", text)
