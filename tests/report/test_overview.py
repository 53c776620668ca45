"""Verdicts run by run."""

from __future__ import annotations

import re

from sweeps import curves, sweep

from tokred.report.html import page
from tokred.report.overview import contradictions, overview, verdicts


def against() -> dict:
    found = sweep(title="Second")
    effect = found["effects"][0]
    found["effects"] = [
        effect,
        {**effect, "paper": 0.61, "p": 0.0001, "verdict": "contradicts", "at": {"budget": 0.5}},
        {**effect, "paper": 0.0, "p": 0.01, "verdict": "printed equal, ours differs", "label": "<retained>"},
    ]
    return found


def test_verdicts_are_those_of_the_file_or_counted() -> None:
    assert verdicts(against()) == {"same sign": 1, "contradicts": 1, "printed equal, ours differs": 1}
    assert verdicts({**against(), "verdicts": {"contradicts": 4, "not resolved": 0}}) == {"contradicts": 4}
    assert verdicts(curves()) == {}


def test_contradictions_are_told_in_words() -> None:
    first, second = contradictions(against())
    assert first == "order=FBF → order=BBB (budget=0.5), motion: printed +0.61, ours −4.0 points, p<0.001"
    assert second == "order=FBF → order=BBB, <retained>: printed 0.00, ours −0.040, p=0.010"
    assert contradictions(sweep()) == []


def test_each_run_has_a_line_that_leads_to_its_table_and_so_has_each_contradiction() -> None:
    html = overview([("r1", "1. First", sweep()), ("r2", "2. <b>", against()), ("r3", "3. Third", curves())])
    table, rest = html.split("</table>")
    assert re.findall(r'href="#([^"]+)"', table) == ["r1-effects", "r2-effects"]
    assert re.findall(r'href="#([^"]+)"', rest) == ["r2-effects"] * 2
    assert "<b>" not in html
    assert "<retained>" not in html
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)', table)
    assert heads == ["run", "effects", "✓ same sign", "✗ contradicts", "✗ printed equal, ours differs"]
    assert re.findall(r"<td[^>]*>([^<]+)", table) == ["1", "1", "–", "–", "3", "1", "1", "1"]
    assert "1 sweep without printed effects." in html
    assert "2 contradictions" in html


def test_without_contradictions_it_says_so_and_without_effects_it_says_nothing() -> None:
    assert "No effect contradicts a printed one." in overview([("r1", "1. First", sweep())])
    assert overview([("r1", "1. Third", curves())]) == ""


def test_it_stands_on_pages_of_several_runs_before_everything_else() -> None:
    html = page([sweep(), curves()])
    assert html.index('id="verdicts"') < html.index("<nav")
    assert 'href="#r1-effects"' in html
    assert 'id="r1-effects"' in html
    assert 'id="verdicts"' not in page([sweep()])
