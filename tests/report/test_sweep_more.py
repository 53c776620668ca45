"""Tables beside the points: seeds, overlaps, verdicts."""

from __future__ import annotations

import pytest
from sweeps import measured, sweep, with_seeds

from tokred.report.sweep_more import MARKS, over_seeds, overlap, overlap_frame, seeds_frame, verdict_line
from tokred.run.sweep_effects import VERDICTS, verdict


def test_a_point_over_its_seeds_has_all_clips_and_the_spread() -> None:
    heads, lines = over_seeds(with_seeds())
    assert heads == [
        "over seeds", "seeds", "measured on", "mean", "sd of seeds", "diff", "95 % interval", "sd of seeds", "clips",
    ]  # fmt: skip
    assert lines == [
        ["sta", "0, 1", "motion %", "88.0", "2.8", "-7.0*", "-10.0 to -4.0", "2.8", "400"],
        ["sta", "0, 1", "trajectory", "3.500", "0.600", "–", "–", "–", "9"],
    ]


def test_a_point_over_its_seeds_is_a_line_of_a_frame() -> None:
    (line,) = seeds_frame(with_seeds()).to_dict("records")
    assert (line["point"], line["seeds"], line["motion_top1_sd"], line["motion_n"]) == ("sta", "0 1", 0.028, 400)
    assert (line["trajectory"], line["trajectory_sd"]) == (3.5, pytest.approx(0.6))
    assert not any(name.startswith("motion_seed") for name in line)


def test_what_two_points_have_in_common_is_a_line() -> None:
    heads, lines = overlap(measured())
    assert heads == ["overlap", "IoU", "Rand", "Spearman", "Kendall", "clips"]
    assert lines == [["sta & tome", "0.500", "0.250", "0.750", "–", "9"]]
    assert list(overlap_frame(measured())) == ["a", "b", "iou", "rand", "spearman", "kendall", "clips"]


def test_runs_without_seeds_or_overlaps_have_no_such_tables() -> None:
    assert over_seeds(sweep())[1] == overlap(sweep())[1] == []
    assert overlap_frame(sweep()).empty
    assert seeds_frame(sweep()).empty
    assert verdict_line(sweep(effects=[])) == ""


def test_every_verdict_has_a_mark_and_its_place() -> None:
    reached = {
        verdict(paper, ours, p) for paper in (None, 0.0, 1.0) for ours in (None, -1.0, 0.0, 1.0) for p in (0.01, 0.5)
    }
    assert reached == set(MARKS)
    assert tuple(MARKS) == VERDICTS


@pytest.mark.parametrize(
    ("reached", "line"),
    [
        (["same sign", "not resolved", "same sign"], "3 printed effects: same sign: 2; not resolved: 1"),
        (
            ["printed equal, ours differs", "contradicts", "printed equal"],
            "3 printed effects: contradicts: 2 (1 of them printed equal, ours differs); printed equal: 1",
        ),
        (
            ["printed equal, ours differs"],
            "1 printed effect: contradicts: 1 (1 of them printed equal, ours differs)",
        ),
    ],
)
def test_a_contradicted_equality_counts_with_the_contradictions(reached, line) -> None:
    assert verdict_line(sweep(effects=[{"verdict": one} for one in reached])) == line
