"""``tokred check``: the contract's report, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tokred.testing import CheckFailed

Call = Callable[..., tuple[int, str, str]]

MINE = '''
import torch
import tokred


class Mine(tokred.TokenReducer):
    """Keeps the first tokens."""

    strength = "keep"
    {declared}

    def __init__(self, keep: float = 1.0) -> None:
        super().__init__(tokred.Schedule(at="thirds", keep=keep))

    def reduce(self, tokens, probe, site):
        left = site.left(tokens.patch_count)
        return tokred.keep_patches(tokens, torch.arange(left).expand(len(tokens.x), -1))
'''


def written(folder: Path, declared: str) -> str:
    path = folder / "mine.py"
    path.write_text(MINE.format(declared=declared))
    return f"{path}:Mine"


def test_a_kept_clause_is_one_line_and_status_zero(tokred: Call, tmp_path: Path) -> None:
    spec = written(tmp_path, "capabilities = tokred.Capabilities(keeps_order=True)")
    status, out, _ = tokred("check", spec, "--only", "check_order_and_prefix_kept")
    assert status == 0, out
    assert "check_order_and_prefix_kept" in out
    assert out.rstrip().endswith("0 failed, 0 skipped")


def test_a_broken_clause_is_told_with_what_was_expected_and_status_one(tokred: Call, tmp_path: Path) -> None:
    spec = written(tmp_path, "capabilities = tokred.Capabilities(changes_length=False)")
    status, out, _ = tokred("check", spec, "--only", "check_declarations", "--backbone", "video")
    assert status == 1, out
    for word in (
        "FAIL",
        "expected   the number of tokens",
        "got",
        "reproduce  import tokred; tokred.testing.check_reducer(",
    ):
        assert word in out
    assert "windows" not in out


def test_drawn_steps_are_a_column_and_a_failure_among_them_can_be_typed_in_again(tokred: Call, tmp_path: Path) -> None:
    spec = written(tmp_path, "capabilities = tokred.Capabilities(keeps_frames=True)")
    status, out, _ = tokred("check", spec, "--only", "check_order_and_prefix_kept")
    assert status == 1, out
    assert "steps" in out.splitlines()[1]
    (line,) = (line for line in out.splitlines() if "tokred.testing.check_step(" in line)
    with pytest.raises(CheckFailed, match="every temporal group to keep as many"):
        exec(line.removeprefix("  reproduce  "), {})


def test_json_has_one_entry_a_check(tokred: Call) -> None:
    status, out, _ = tokred("check", "random_drop", "--only", "check_declarations", "--json")
    found = json.loads(out)
    assert status == 0
    assert {entry["check"] for entry in found} == {"check_declarations"}
    assert {entry["backbone"] for entry in found} >= {"video", "windows"}


def test_a_method_that_no_backbone_accepts_fails(tokred: Call) -> None:
    status, out, _ = tokred("check", "sta_window", "--backbone", "video", "--only", "check_declarations")
    assert status == 1
    assert "check_attaches" in out
    assert "needs a backbone with window attention" in out


def test_bad_words_are_one_line_and_status_two(tokred: Call, tmp_path: Path) -> None:
    for words in (
        ("random_dorp",),
        ("random_drop", "--only", "check_everything"),
        ("random_drop", "--backbone", "vidoe"),
        (f"{tmp_path}/none.py:Mine",),
        (),
        ("random_drop", "--all"),
        ("random_drop", "--profile", "depe"),
        ("random_drop", "--deep", "--profile", "ci"),
    ):
        status, out, err = tokred("check", *words)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1, err


def test_a_declaration_that_switches_clauses_off_for_nothing_is_told(tokred: Call, tmp_path: Path) -> None:
    spec = written(tmp_path, "capabilities = tokred.Capabilities(static_counts=False)")
    status, out, _ = tokred("check", f"{spec}:keep=0.5", "--only", "check_declarations", "--backbone", "video")
    assert status == 0, out
    assert "\nwarning: it declares static_counts=False, which switches clauses off, but its token counts were" in out
