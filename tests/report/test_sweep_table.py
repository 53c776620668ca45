"""A sweep on a terminal, as Markdown and as a frame: ours beside theirs, nothing left out in silence."""

from __future__ import annotations

import io

from rich.console import Console
from sweeps import sweep

from tokred.report.frames import sweep_frame
from tokred.report.sweep_table import MARKS, describe, effects, points, print_sweep, remarks, sweep_markdown
from tokred.run.sweep_effects import verdict


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


def test_seeds_are_named_only_where_there_are_several() -> None:
    point = {"reducer": "sta:r=8", "budget": 0.5, "seed": 1}
    assert describe(point, {"seeds": [0]}) == "sta:r=8, budget=0.5"
    assert describe(point, {"seeds": [0, 1]}) == "sta:r=8, budget=0.5, seed=1"


def test_numbers_are_never_cut_off_on_a_narrow_terminal() -> None:
    out = io.StringIO()
    print_sweep(sweep(), Console(file=out, width=160))
    assert "…" not in out.getvalue()
    assert "-5.0*" in out.getvalue()


def test_markdown_has_both_tables() -> None:
    text = sweep_markdown(sweep())
    assert text.count("\n| ---") == 2
    assert "| order=FBF | 0.490 |" in text


def test_the_frame_has_one_line_per_cell_with_the_axes_as_columns() -> None:
    frame = sweep_frame(sweep())
    assert list(frame["reducer.order"]) == ["FBF", "BBB", "BFF"]
    assert frame.loc[0, "motion_top1"] == 0.9
    assert frame.loc[0, "paper_value"] == 84.96
    assert list(frame["status"]) == ["done", "done", "excluded"]


def test_every_verdict_has_a_mark() -> None:
    words = {
        verdict(paper, ours, p) for paper in (None, 0.0, 1.0) for ours in (None, -1.0, 0.0, 1.0) for p in (0.01, 0.5)
    }
    assert words == set(MARKS)
