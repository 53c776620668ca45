from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweeps import measured, with_seeds

from tokred.report import render, write_run

Results = dict[str, Any]


@pytest.fixture
def small(make: Callable[..., Results]) -> Results:
    found = make(budgets=(0.5,))
    found["rows"] = found["rows"][:3]
    return found


def test_a_run_folder_gets_table_pictures_and_page_and_nothing_else(small: Results, tmp_path: Path) -> None:
    written = write_run(small, tmp_path / "new" / "run")
    names = ["accuracy_gflops.png", "report.html", "results.csv", "speed.png"]
    assert sorted(p.name for p in written) == names
    assert sorted(p.name for p in (tmp_path / "new" / "run").iterdir()) == names
    assert (tmp_path / "new" / "run" / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert (tmp_path / "new" / "run" / "results.csv").read_text(encoding="utf-8").count("\n") == 4


def test_a_picture_of_nothing_is_not_written_and_an_old_one_goes(small: Results, tmp_path: Path) -> None:
    (tmp_path / "speed.png").write_bytes(b"of an earlier call")
    for row in small["rows"]:
        row["speed"] = None
    assert "speed.png" not in [p.name for p in write_run(small, tmp_path)]
    assert not (tmp_path / "speed.png").exists()


def test_a_sweep_gets_tables_of_overlaps_and_seeds_where_it_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokred.report.sweep_plots.pictures", lambda *_: {})

    def tables() -> set[str]:
        return {path.name for path in tmp_path.glob("*.csv")}

    write_run(measured(), tmp_path)
    assert tables() == {"results.csv", "overlap.csv"}
    assert (tmp_path / "overlap.csv").read_text() == (
        "a,b,iou,rand,spearman,kendall,clips\nsta,tome,0.5,0.25,0.75,,9\n"
    )
    write_run(with_seeds(), tmp_path)
    assert tables() == {"results.csv", "seeds.csv"}
    assert (tmp_path / "seeds.csv").read_text().startswith("point,seeds,motion_top1,")


@pytest.mark.usefixtures("no_pictures")
def test_a_write_that_fails_leaves_the_old_file(
    small: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.html"
    target.write_text("old")

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:10])
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="disk full"):
        render([small], target)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.html"]


@pytest.mark.usefixtures("no_pictures")
def test_a_report_goes_into_a_file_or_a_folder(small: Results, tmp_path: Path) -> None:
    assert render([small], tmp_path) == tmp_path / "report.html"
    assert render([small, small], tmp_path / "deep" / "joined.html", title="Both") == tmp_path / "deep" / "joined.html"
    assert "<title>Both</title>" in (tmp_path / "deep" / "joined.html").read_text(encoding="utf-8")
