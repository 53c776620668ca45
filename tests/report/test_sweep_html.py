"""Sweeps and comparisons on one page."""

from __future__ import annotations

import pytest
from sweeps import curves, measured, over_depth, sweep

from tokred.report.html import page
from tokred.report.sweep_html import lead, section, sort_keys


def test_a_section_has_tables_pictures_effects_and_notes() -> None:
    html = section(sweep(), "r1", "Order")
    for part in ("<svg", "order=FBF", "✓ same sign", "left out: order=BFF", "K400 top-1, %", "tokred sweep order.yaml"):
        assert part in html
    assert html.count("<table") == 2


def test_a_point_is_one_line_with_its_own_mark_whatever_is_measured() -> None:
    html = section(measured(), "r1", "x")
    table = html[html.index('id="r1-points"') :]
    rows = table[: table.index("</table>")].split("<tr>")[2:]
    assert [row.count("<svg") for row in rows] == [1, 1]
    drawn = [row[row.index("<svg") : row.index("</svg>")] for row in rows]
    assert drawn[0] != drawn[1]


def test_what_came_from_outside_is_escaped() -> None:
    found = sweep(title="<script>alert(1)</script>", source='"><img src=x>')
    found["rows"][0]["notes"] = ["<b>note</b>"]
    html = page([found])
    assert "<script>alert" not in html
    assert "<img" not in html
    assert "<b>note" not in html


def test_several_sweeps_are_one_page_with_their_own_anchors() -> None:
    html = page([sweep(), curves(), over_depth()])
    assert all(f'id="r{i}"' in html for i in (1, 2, 3))
    assert html.count("<h1>") == 4
    assert "3 runs of token reducers" in html


def test_an_unfinished_sweep_says_so() -> None:
    assert "goes on from here" in section(sweep(complete=False), "r1", "x")
    assert "goes on from here" not in section(sweep(), "r1", "x")


def test_the_lead_says_what_was_varied_on_what() -> None:
    assert lead(sweep()).startswith("order: 2 of 3 cells on videomae_vit_nano (0.986 GMAC), 200 clips of synthetic")


@pytest.mark.parametrize(
    ("cells", "keys"),
    [
        (["-5.0*", "+3.0", "–", "0.0"], ["-5.0", "3.0", "", "0.0"]),
        (["p=0.20", "p<0.001", "p=0.001"], ["0.20", "0", "0.001"]),
        (["-8.0 to +1.0", "–"], ["-8.0", ""]),
        (["0.486", "failed", "pending"], ["0.486", "", ""]),
        (["✓ same sign", "–"], ["✓ same sign", ""]),
        (["order=FBF, r=8", "order=BFF, r=16"], ["order=FBF, r=8", "order=BFF, r=16"]),
        (["nan", "1_000", "2nd half"], ["nan", "1_000", "2nd half"]),
    ],
)
def test_a_column_sorts_by_its_numbers_and_what_has_none_comes_last(cells, keys) -> None:
    assert sort_keys(cells) == keys


def test_words_stand_left_and_keep_their_hyphens() -> None:
    found = sweep()
    found["effects"][0]["label"] = "top-down"
    assert '<td class=left data-s="top-down">top-down</td>' in section(found, "r1", "x")


def test_a_table_of_few_columns_is_printed_upright() -> None:
    assert section(sweep(), "r1", "x").count('class="results narrow"') == 2
    found = sweep()
    numbers = found["rows"][0]["accuracy"]["motion"]
    found["rows"][0]["accuracy"] |= {"appearance": numbers, "speed": numbers}
    assert section(found, "r1", "x").count('class="results narrow"') == 1
