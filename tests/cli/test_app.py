"""Bad usage: exit status 2 and one line that names the argument, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tokred import __version__

Call = Callable[..., tuple[int, str, str]]

BAD = [
    (["compare", "--backbone", "videomae_vit_smal"], ["videomae_vit_smal", "videomae_vit_small"]),
    (["compare", "--checkpoint", "no.pth"], ["no.pth"]),
    (["compare", "--data", "no/such/folder"], ["no/such/folder", "synthetic"]),
    (["compare", "--data", "synthetic:sed=3"], ["sed=3", "seed=NUMBER"]),
    (["compare", "--reducers", "stta:r=3"], ["stta", "sta"]),
    (["compare", "--reducers", "sta:rr=3"], ["rr", "allowed are r"]),
    (["compare", "--reducers", "sta:r=-3"], ["-3", "at least 0"]),
    (["compare", "--reducers", "sta:order=FXF"], ["FXF", "F (forward)"]),
    (["compare", "--reducers", "no_file.py:Mine"], ["no_file.py"]),
    (["compare", "--reducers", "no.such.module:Mine"], ["no.such.module"]),
    (["compare", "--budgets", "0.5,2"], ["2", "(0, 1]"]),
    (["compare", "--budgets", "half"], ["half", "(0, 1]"]),
    (["compare", "--views", "2x2"], ["2x2", "CLIPSxCROPS"]),
    (["compare", "--sampling", "densee"], ["densee", "dense, uniform"]),
    (["compare", "--dtype", "float31"], ["float31", "float32"]),
    (["compare", "--device", "tpu7"], ["tpu7", "cpu"]),
    (["compare", "--device", "cuda:63"], ["cuda:63", "CUDA devices"]),
    (["compare", "--clips", "0"], ["--clips", "0"]),
    (["compare", "--timing", "-1"], ["--timing", "-1"]),
    (["compare", "--seed", "x"], ["--seed", "x"]),
    (["compare", "--nonsense"], ["--nonsense"]),
    (["profile", "--reducer", "sta:r=400", "--backbone", "videomae_vit_small"], ["400", "196"]),
    (["profile", "--reducer", "evit:keep=1.5"], ["1.5", "(0, 1]"]),
    (["profile", "--reducer", "evit:at=[77]"], ["77", "0..8"]),
    (["profile", "--reducer", "evit:score=class"], ["class token"]),
    (["profile", "--budget", "1.5"], ["--budget", "1.5"]),
    (["parity", "no/such/folder"], ["no/such/folder"]),
    (["report", "no/such/run"], ["no/such/run"]),
    (["train", "no.yaml"], ["no.yaml"]),
    (["list", "metods"], ["metods", "methods"]),
    (["cmpare"], ["cmpare"]),
]


@pytest.mark.parametrize(("words", "named"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_usage_is_one_line_and_status_2(tokred: Call, words: list[str], named: list[str]) -> None:
    status, _, err = tokred(*words)
    assert status == 2, err
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("tokred: ")]
    assert len(lines) == 1, err
    for text in named:
        assert text in lines[0]


def test_out_must_not_be_a_file(tokred: Call, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("mine")
    status, _, err = tokred("compare", "--out", blocked, "--clips", 1)
    assert status == 2
    assert "--out" in err
    assert blocked.read_text() == "mine"


def test_a_results_file_of_another_kind_is_refused(tokred: Call, tmp_path: Path) -> None:
    for content in ("{}", "[1]", "not json", '{"schema": 99, "rows": []}'):
        (tmp_path / "results.json").write_text(content)
        status, _, err = tokred("report", tmp_path)
        assert status == 2, content
        assert "results.json" in err


def test_no_words_print_the_help(tokred: Call) -> None:
    status, out, _ = tokred()
    assert status == 2
    assert "compare" in out


def test_version(tokred: Call) -> None:
    assert tokred("--version")[:2] == (0, f"tokred {__version__}\n")


def test_help_of_every_command(tokred: Call) -> None:
    for command in ("compare", "report", "profile", "parity", "train", "list"):
        status, out, _ = tokred(command, "--help")
        assert status == 0
        assert "Usage: tokred" in out
