"""Points of one method share its colour and marker; names are never cut where they differ."""

from __future__ import annotations

import pytest

from tokred.report.looks import LONGEST, lines_in, looks, styles_in, wrapped
from tokred.report.style import line_style, style_of


def test_series_of_one_method_differ_in_line_style_and_never_in_colour() -> None:
    rows = {f"{m} seed={s}": [{"method": m}] for s in (0, 1, 2) for m in ("none", "sta", "mine")}
    found = looks(rows, styles_in({"rows": [row for members in rows.values() for row in members]}))
    for name, style in found.items():
        own = style_of(name.split()[0])
        assert (style.color, style.marker) == (own.color, own.marker)
    for method in ("none", "sta", "mine"):
        drawn = [(str(line_style(s)), s.fill) for name, s in found.items() if name.startswith(method)]
        assert len(set(drawn)) == len({line for line, _ in drawn}) == 3


def test_rows_without_a_method_have_no_style() -> None:
    assert set(styles_in({"rows": [{"method": None}, {"method": "sta"}]})) == {"sta"}


@pytest.mark.parametrize("width", [8, 24, 44])
@pytest.mark.parametrize(
    "name",
    ["sta, budget=0.5, seed=1", "order=FBF, r=[64,32,16,8,4,2], seed=11", "a" * 60 + ", seed=0", "x", "a  b", ", ,"],
)
def test_a_wrapped_name_keeps_every_character(name: str, width: int) -> None:
    found = wrapped(name, width)
    assert max(map(len, found.split("\n"))) <= width
    assert found.replace("\n", "").replace(" ", "") == name.replace(" ", "")


def test_lists_are_broken_behind_commas() -> None:
    assert wrapped("r=[64,32,16,8]", 9) == "r=[64,32,\n16,8]"


def test_of_an_endless_name_both_ends_are_left() -> None:
    found = wrapped("begin" + "x" * 1000 + "seed=7", 24).replace("\n", "")
    assert len(found) <= LONGEST
    assert found.startswith("begin")
    assert found.endswith("seed=7")


def test_lines_are_counted() -> None:
    assert lines_in(["a", "a\nb", "a\nb\nc"]) == 6
