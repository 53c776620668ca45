from __future__ import annotations

import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tokred.report.terminal import print_table

Results = dict[str, Any]


def _printed(results: Results, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    print_table(results, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_it_fits_without_a_cut_number_and_names_what_it_left_out(results: Results, width: int) -> None:
    text = _printed(results, width)
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    assert f"No room at {width} characters for:" in text
    assert text.count("STA ") == 3


def test_a_wide_terminal_leaves_nothing_out(results: Results) -> None:
    text = _printed(results, 240)
    assert "No room" not in text
    for part in ("setting", "clips/s", "implied", "p=", "[", "agree-", "KL"):
        assert part in text


def test_a_narrow_terminal_keeps_what_matters(results: Results) -> None:
    text = _printed(results, 80)
    head = text.split("────")[0]
    for part in ("method", "GMAC", "appearance", "motion", "diff", "speed-"):
        assert part in head
    gone = text.split("No room")[1].split("results.csv")[0]
    for part in ("KL (nats)", "clips/s", "setting", "tokens left"):
        assert part in gone.replace("\n", " ")


def test_groups_marks_and_notes(results: Results) -> None:
    lines = [line.strip() for line in _printed(results, 120).splitlines()]
    places = [lines.index(f"{share} % budget") for share in (75, 50, 35)]
    assert places == sorted(places)
    assert next(i for i, line in enumerate(lines) if line.startswith("Unreduced ")) < places[0]
    best = next(line for line in lines[places[1] :] if line.startswith("STA"))
    assert "^" in best
    assert "*" in best
    assert "[1] amount clamped in block 9: 40 asked, 31 possible" in lines


def test_the_setting_stays_where_only_it_tells_rows_apart(results: Results) -> None:
    for row in results["rows"]:
        row["budget"] = None
    assert "r=60" in _printed(results, 80)


def test_without_labels_there_is_agreement_and_the_broken_files(unlabelled: Results) -> None:
    text = _printed(unlabelled, 100)
    assert "agree-" in text
    assert "top-1" not in text
    assert "3 files could not be used:" in text
    assert "<b onmouseover=alert(1)>[red]x.mkv: no video stream; found: audio (aac)" in text
    assert "\x1b" not in text
    assert "\\x1b[2Jclear\\udcff.avi" in text


def test_refused_failed_and_unfinished_rows_come_last(refused: Results, incomplete: Results) -> None:
    text = _printed(refused, 100)
    assert text.index("Without a result: 2 rows") > text.index("Random drop")
    assert "refused: EViT-style at 50 %: EViT needs a class token" in text
    text = _printed(incomplete, 100)
    assert "stopped before its end: 10 of 28 rows" in text
    assert "not run: Grid at 75, 50 and 35 %" in text


def test_nothing_finished_is_no_error() -> None:
    assert "GMAC" in _printed({"schema": 1, "rows": [{"method": "sta", "status": "pending"}]}, 80)
