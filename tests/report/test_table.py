from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest

from tokred.report.table import csv, frame, leftovers, markdown
from tokred.report.view import Run

Results = dict[str, Any]


def test_the_csv_has_a_line_for_every_row_and_plain_columns(results: Results) -> None:
    back = pd.read_csv(io.StringIO(csv(results)))
    assert len(back) == 28
    expected = (
        "id method label reducer budget status reason learned trained gmac gmac_share reduction_gmac tokens_final "
    )
    expected += "tokens_per_block appearance_top1 appearance_low appearance_high appearance_n appearance_diff "
    expected += "appearance_diff_low appearance_diff_high appearance_p appearance_p_holm motion_top1 agreement kl "
    expected += "feature_distance clips_per_s ms_median ms_iqr speedup speedup_low speedup_high implied notes seconds"
    assert set(expected.split()) <= set(back.columns)
    assert back.loc[0, "method"] == "none"
    row = next(r for r in results["rows"] if r["id"] == "sta-0.35")
    line = back[back["id"] == "sta-0.35"].iloc[0]
    assert line["motion_top1"] == pytest.approx(row["accuracy"]["motion"]["top1"], abs=1e-12)
    assert line["tokens_per_block"] == " ".join(map(str, row["tokens_per_block"]))
    assert line["motion_p_holm"] >= line["motion_p"]


def test_rows_without_a_result_are_the_last_lines_with_their_reason(refused: Results) -> None:
    table = frame(refused)
    assert list(table["status"])[-2:] == ["failed", "refused"]
    assert "class token" in table["reason"].iloc[-1]


def test_missing_numbers_are_empty(refused: Results) -> None:
    back = pd.read_csv(io.StringIO(csv(refused)))
    line = back[back["method"] == "topk"].iloc[0]
    assert pd.isna(line["kl"])
    assert pd.isna(line["speedup"])
    assert line["implied"] == pytest.approx(2.0, abs=0.1)


def test_an_empty_run_is_an_empty_table() -> None:
    assert len(frame({"schema": 1, "rows": []})) == 0
    assert csv({"schema": 1, "rows": []}) == "id\n"


def test_markdown_has_every_row_and_closes_no_cell_early(results: Results) -> None:
    results["rows"][1]["label"] = "A|B <i>"
    lines = markdown(results).splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 2 + 28
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    assert any("A\\|B \\<i>" in line for line in table)
    assert any("papers print this number as GFLOPs" in line for line in lines)


def test_markdown_lists_failures(unlabelled: Results, refused: Results) -> None:
    assert "3 files could not be used" in markdown(unlabelled)
    assert "empty.mp4: the file is empty" in markdown(unlabelled)
    assert "- failed: Grid at 50 %: RuntimeError: out of memory" in markdown(refused)


def test_budgets_of_one_method_with_one_reason_share_a_line(incomplete: Results) -> None:
    lines = leftovers(Run(incomplete))
    assert ("not run", "Grid at 75, 50 and 35 %") in lines
    assert len(lines) == 6
