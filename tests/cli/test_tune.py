"""``tokred tune``."""

from __future__ import annotations

import json

import pytest

from tokred.cli.tune import lines


def test_it_writes_the_search_and_says_the_gain_on_other_clips(tokred, tmp_path) -> None:
    words = ("topk", "--budget", 0.6, "--trials", 2, "--calibration", 8, "--test", 8, "--out", tmp_path)
    done = tokred("tune", *words)
    assert done.status == 0
    assert "tested on 8 others (0 shared)" in done.out
    assert "motion:" in done.out
    assert json.loads((tmp_path / "tune.json").read_text())["complete"]
    assert (tmp_path / "tune.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "no schedule to search"),
        (["stta"], "did you mean"),
        (["sta", "--budget", "2"], "from 0.02 to 1"),
        (["sta", "--trials", "0"], "at least 1"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tokred, tmp_path, words, said) -> None:
    done = tokred("tune", *words, "--out", tmp_path / "x")
    assert done.status == 2
    assert said in done.err
    assert done.err.strip().count("\n") == 0


def test_nothing_found_is_said() -> None:
    own = {"loss": 0.1, "share": 0.5, "spec": "a"}
    found = {"tuned": None, "own": own, "trials": [{"loss": None}], "clips": {}}
    assert "no schedule of 1 tried" in lines(found)[-1]
