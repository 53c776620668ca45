"""A sweep on a terminal, as Markdown and as a frame: ours beside theirs, nothing left out in silence."""

from __future__ import annotations

import io

from rich.console import Console
from sweeps import measured, sweep, with_seeds

from tokred.report.sweep_table import effects, points, print_sweep, remarks, sweep_markdown


def test_every_point_has_its_numbers_and_the_printed_ones() -> None:
    heads, lines = points(sweep())
    assert heads == [
        "point", "GMAC", "share", "motion %", "diff", "full-size GMAC", "printed GFLOPs", "printed",
    ]  # fmt: skip
    assert lines[0] == ["order=FBF", "0.490", "49", "90.0", "-5.0*", "308.7", "308.0", "84.96"]
    assert len(lines) == 2  # the excluded point is a remark


def test_an_effect_says_whether_ours_has_the_printed_sign() -> None:
    _, lines = effects(sweep())
    assert lines == [["order=FBF → order=BBB", "-0.61", "motion", "-4.0", "-8.0 to +1.0", "p=0.20", "✓ same sign"]]


def test_what_is_left_out_failed_or_noted_is_said() -> None:
    found = sweep()
    found["rows"][1] |= {"status": "failed", "reason": "out of memory"}
    found["rows"][0]["failures"] = [{"path": "a.mp4", "reason": "no picture"}]
    text = "\n".join(remarks(found))
    for part in (
        "left out: order=BFF: no such order",
        "failed: order=BBB: out of memory",
        "a.mp4: no picture",
        "a note",
    ):
        assert part in text


def test_numbers_are_never_cut_off_on_a_narrow_terminal() -> None:
    out = io.StringIO()
    print_sweep(with_seeds(), Console(file=out, width=40))
    assert "…" not in out.getvalue()
    assert "-10.0 to -4.0" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) > 40


def test_markdown_has_both_tables() -> None:
    text = sweep_markdown(sweep())
    assert text.count("\n| ---") == 2
    assert "| order=FBF | 0.490 |" in text


def test_a_point_is_one_line_whatever_is_measured_on_it() -> None:
    heads, lines = points(measured())
    assert heads == ["point", "GMAC", "share", "motion %", "diff", "trajectory", "patches_carried", "full-size GMAC"]
    assert lines == [
        ["sta", "0.490", "49", "90.0", "-5.0*", "3.500", "0.500", "308.7"],
        ["tome", "0.490", "49", "90.0", "-5.0*", "3.500", "1.000", "308.7"],
    ]


def test_a_measure_that_failed_hides_nothing_of_the_others() -> None:
    found = measured()
    found["rows"][2] |= {"status": "failed", "reason": "nothing can be traced", "values": {}}
    assert points(found)[1][0] == ["sta", "0.490", "49", "90.0", "-5.0*", "3.500", "–", "308.7"]
    assert "failed: sta: carried: nothing can be traced" in remarks(found)
    for row in found["rows"][:3]:
        row |= {"status": "failed", "reason": "no memory", "values": {}, "accuracy": {}}
    assert points(found)[1][0][:3] == ["sta", "failed", "49"]


def test_what_was_noted_of_one_measure_is_noted_of_the_point() -> None:
    assert "note: of the curve (2 points)" in remarks(measured())


def test_notes_that_planning_joined_are_not_said_again() -> None:
    found = sweep()
    found["rows"][0]["notes"] = ["block 7: a; block 8: b", "block 7: a", "block 8: b"]
    assert [line for line in remarks(found) if line.startswith("note")] == ["note: block 7: a; block 8: b (order=FBF)"]


def test_a_full_size_cost_that_is_not_the_printed_one_is_said() -> None:
    found = sweep()
    assert not any("full-size" in line for line in remarks(found))
    found["rows"][0]["full_gmac"] = 320.0
    found["rows"][1]["full_gmac"] = 300.0
    line = "note: full-size GMAC more than 2 % from the printed GFLOPs: order=FBF 320.0 beside 308.0 (+3.9 %), "
    assert line + "order=BBB 300.0 beside 308.0 (-2.6 %)" in remarks(found)
    found["rows"][0]["paper"] = {"value": 1.0, "gflops": None}
    found["rows"][1]["full_gmac"] = None
    assert not any("full-size" in line for line in remarks(found))


def test_a_cost_that_differs_is_said_once_for_all_seeds() -> None:
    found = with_seeds()
    for row in found["rows"]:
        row |= {"paper": {"gflops": 300.0}, "full_gmac": 330.0}
    assert "note: full-size GMAC more than 2 % from the printed GFLOPs: sta 330.0 beside 300.0 (+10.0 %)" in remarks(
        found
    )


def test_verdicts_are_summed_up_below_the_effects() -> None:
    out = io.StringIO()
    print_sweep(sweep(), Console(file=out, width=160))
    assert "1 printed effect: same sign: 1" in out.getvalue()
    assert "\n\n1 printed effect: same sign: 1\n\n" in sweep_markdown(sweep())


def test_points_over_seeds_and_overlaps_have_tables_of_their_own() -> None:
    assert "| sta | 0, 1 | motion % | 88.0 | 2.8 |" in sweep_markdown(with_seeds())
    assert "| sta & tome | 0.500 |" in sweep_markdown(measured())
    out = io.StringIO()
    print_sweep(measured(), Console(file=out, width=160))
    assert "sta & tome" in out.getvalue()


def test_many_overlaps_are_left_to_the_files() -> None:
    found = measured()
    found["overlap"] *= 31
    out = io.StringIO()
    print_sweep(found, Console(file=out, width=160))
    assert "31 pairs of points" in out.getvalue()
    assert "sta & tome" not in out.getvalue()
    assert sweep_markdown(found).count("sta & tome") == 31
