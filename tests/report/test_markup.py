from __future__ import annotations

from typing import Any

from tokred.report.markup import e, table
from tokred.report.style import styles_of
from tokred.report.view import Run

Results = dict[str, Any]


def test_everything_is_escaped() -> None:
    assert e("<a href='x'>\"&\x00") == "&lt;a href=&#x27;x&#x27;&gt;&quot;&amp;\\x00"


def test_a_body_for_each_budget_and_values_to_sort_by(results: Results) -> None:
    results["rows"][1]["label"] = "<img src=x onerror=alert(1)>"
    html = table(Run(results), styles_of(r["method"] for r in results["rows"]))
    assert html.count("<tbody>") == 4
    assert html.count('<tr class="group">') == 3
    assert html.count('<th scope="row"') == 28
    assert "<img" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    row = next(r for r in results["rows"] if r["id"] == "tome-0.5")
    assert f'data-s="{row["accuracy"]["motion"]["top1"]}"' in html


def test_numbers_have_a_minus_and_names_keep_their_hyphen(results: Results) -> None:
    html = table(Run(results), styles_of(r["method"] for r in results["rows"]))
    assert "−1." in html
    assert "Top-k attention" in html
    assert "<i>*</i><small>p&lt;0.001</small>" in html


def test_missing_values_sort_last_and_show_a_dash(refused: Results) -> None:
    html = table(Run(refused), styles_of(r["method"] for r in refused["rows"]))
    assert '<td data-s="">–</td>' in html
    assert "nan" not in html.lower()
