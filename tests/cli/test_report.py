"""``tokred report`` renders finished runs again, alone or together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Call = Callable[..., tuple[int, str, str]]


def test_two_runs_on_one_page(tokred: Call, tmp_path: Path) -> None:
    for name, reducer in (("one", "grid:keep=0.5"), ("two", "sta:r=12")):
        words = ("--clips", 4, "--timing", 0, "--reducers", reducer, "--out", tmp_path / name)
        assert tokred("compare", *words)[0] == 0
    (tmp_path / "one" / "report.html").unlink()
    page = tmp_path / "both" / "page.html"
    status, out, err = tokred("report", tmp_path / "one", tmp_path / "two" / "results.json", "--out", page)
    assert status == 0, err
    assert str(page) in out
    text = page.read_text()
    assert "grid" in text
    assert "sta" in text
    assert (tmp_path / "one" / "report.html").is_file()


def test_every_run_that_is_none_is_named(tokred: Call, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "sweep.json").write_text("{")
    status, out, err = tokred("report", tmp_path / "nope", tmp_path / "two", tmp_path / "cells")
    assert (status, out) == (2, "")
    for name, line in zip(("nope", "two", "cells"), err.splitlines(), strict=True):
        assert line.startswith(f"tokred: {tmp_path / name}")
