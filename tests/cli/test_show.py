"""``tokred show``."""

from __future__ import annotations

import json

import pytest


def test_it_writes_the_picture_and_says_what_is_on_it(tokred, tmp_path) -> None:
    out = tmp_path / "deep" / "show.png"
    done = tokred("show", "synthetic", "--reducer", "sta:r=22", "--reducer", "tome:r=20", "--stages", 1, "--out", out)
    assert done.status == 0
    assert "sta:r=22, behind block 6: 204 tokens" in done.out
    assert "tome:r=20, behind block 8" in done.out
    assert out.stat().st_size > 1000


def test_json_has_the_patches(tokred, tmp_path) -> None:
    done = tokred("show", "synthetic", "--reducer", "sta:r=22", "--stages", 1, "--json", "--out", tmp_path / "a.png")
    found = json.loads(done.out)
    assert found["grid"] == [8, 8, 8]
    (stage,) = found["reducers"][0]["stages"]
    assert sum(token >= 0 for frame in stage["source"] for row in frame for token in row) == stage["tokens"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["synthetic"], "reducer"),
        (["synthetic", "--reducer", "stta"], "did you mean"),
        (["synthetic", "--reducer", "sta", "--out", "x.jpg"], ".gif"),
        (["nowhere.mp4", "--reducer", "sta"], "no such file"),
        (["synthetic", "--reducer", "sta", "--clip", "-1"], "at least 0"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tokred, words, said) -> None:
    done = tokred("show", *words)
    assert done.status == 2
    assert said in done.err
    assert done.err.strip().count("\n") == 0
