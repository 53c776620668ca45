from __future__ import annotations

from pathlib import Path

from testing.zoo import spec

import tokred
from tokred.registry import build
from tokred.testing.export_table import export_table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"


def test_the_page_shows_what_the_methods_declare() -> None:
    built_in = [cls for cls in tokred.list_methods().values() if cls.__module__.startswith("tokred.methods")]
    table = export_table(built_in)
    assert table in PAGE.read_text(), f"put this into {PAGE.name}:\n\n{table}"


def test_reasons_are_given_once_under_the_table() -> None:
    breaks = type(build(spec("HonestBreak")))
    lines = export_table([breaks, type(build(spec("DeclaresNoFile"))), breaks]).splitlines()
    assert lines[2].endswith("| no [1] | no [1] | no [1] |")
    assert lines[3].endswith("| yes | yes | no [2] |")
    assert lines[4] == lines[2]
    assert lines[5:] == ["", "[1] it looks at scores in Python", "[2] its score has no counterpart"]
