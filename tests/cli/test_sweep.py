"""``tokred sweep``: from a file to tables and a page; bad files are told line by line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Call = Callable[..., tuple[int, str, str]]

SMALL = """
name: small
title: A small sweep
base: {clips: 3, batch_size: 3, reducer: "sta:r=8"}
axes:
  - {reducer.r: [4, 12]}
excludes:
  - {when: {reducer.r: 4}, reason: known already}
profiles:
  nano: {}
  full: {base: {backbone: videomae_vit_small, checkpoint: small.pth, data: val.txt}, needs: weights and clips}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_a_dry_run_prints_cells_and_cost_and_computes_nothing(tokred: Call, file: Path, tmp_path: Path) -> None:
    status, out, err = tokred("sweep", file, "--dry-run", "--out", tmp_path / "run")
    assert status == 0, err
    assert not (tmp_path / "run").exists()
    assert "sta:r=12" in out
    assert "left out: known already" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("2 cells: 2 to compute; 6 clips, ")
    assert "not known before a cell is finished" in last
    status, out, _ = tokred("sweep", file, "--dry-run", "--json", "--out", tmp_path / "run")
    found = json.loads(out)
    assert (found["todo"], found["clips"], found["seconds"]) == (2, 6, None)
    assert [cell["state"] for cell in found["cells"]] == ["to compute", "excluded", "to compute"]


def test_a_sweep_leaves_a_table_a_page_and_its_cells(tokred: Call, file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, out, err = tokred("sweep", file, "--out", run, "--workers", 1, "--parquet")
    assert status == 0, err
    assert "A small sweep" in out
    assert {"sweep.json", "results.csv", "report.html", "results.parquet"} <= {path.name for path in run.iterdir()}
    assert list(pd.read_parquet(run / "results.parquet")["status"]) == ["excluded", "done"]
    status, out, err = tokred("sweep", file, "--out", run, "--workers", 1, "--csv")
    assert status == 0
    assert "2 of 2 cells are kept from an earlier run" in err
    assert out == (run / "results.csv").read_text()
    status, out, _ = tokred("sweep", file, "--out", run, "--dry-run")
    assert "nothing is left to do" in out


def test_everything_that_is_wrong_has_a_line(tokred: Call, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(SMALL.replace("title:", "titel:").replace("[4, 12]", "[4, 400]"))
    status, out, err = tokred("sweep", file)
    assert (status, out) == (2, "")
    titel, blamed = err.strip().splitlines()
    assert "titel: unknown key; did you mean title?" in titel
    assert blamed.endswith("axes[0].reducer.r: 400 is not below 64 at block 0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "nanno"], "did you mean nano?"),
        (["--set", "base.clisp=3"], "did you mean clips?"),
        (["--engine", "lokal"], "did you mean local?"),
        (["--seed", "-1"], "at least 0"),
        (["--seed", "1", "--set", "seeds=[2]"], "exclude each other"),
        (["--workers", "0"], "at least 1"),
        (["--dtype", "float33"], "did you mean float32?"),
        (["--address", "there:1", "--engine", "local"], "belongs to the engine ray"),
    ],
)
def test_wrong_words_are_one_line(tokred: Call, file: Path, tmp_path: Path, words: list[str], said: str) -> None:
    status, _, err = tokred("sweep", file, "--out", tmp_path / "run", *words)
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_folder_that_is_a_file_is_refused(tokred: Call, file: Path) -> None:
    status, _, err = tokred("sweep", file, "--out", file)
    assert status == 2
    assert "is a file" in err


def test_a_failed_cell_is_named_and_the_others_are_there(
    tokred: Call, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokred.run import work

    whole = work._compute

    def broken(task, advance):  # type: ignore[no-untyped-def]
        if task.cell.reducer != "none":
            raise RuntimeError("out of memory")
        return whole(task, advance)

    monkeypatch.setattr(work, "_compute", broken)
    status, out, err = tokred("sweep", file, "--out", tmp_path / "run", "--workers", 1, "--json")
    assert status == 1
    assert "failed: sta:r=12" in err
    assert "RuntimeError: out of memory" in err
    assert [row["status"] for row in json.loads(out)["rows"]] == ["excluded", "failed"]
    monkeypatch.undo()
    assert tokred("sweep", file, "--out", tmp_path / "run", "--workers", 1).status == 1  # type: ignore[attr-defined]
    again = tokred("sweep", file, "--out", tmp_path / "run", "--workers", 1, "--retry-failed")
    assert again[0] == 0


def test_a_full_disk_is_one_line(tokred: Call, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokred.run.store import CellStore

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CellStore, "write", full)
    status, _, err = tokred("sweep", file, "--out", tmp_path / "run", "--workers", 1)
    assert status == 1
    assert err.strip().splitlines()[-1].startswith("tokred: stopped, nothing can be written")
    assert "Traceback" not in err


def test_settings_can_be_changed_without_the_file(tokred: Call, file: Path, tmp_path: Path) -> None:
    words = ["--set", "axes.r=[12]", "--set", "base.clips=5", "--dtype", "float64", "--dry-run", "--json"]
    status, out, err = tokred("sweep", file, "--out", tmp_path / "run", *words)
    assert status == 0, err
    found = json.loads(out)
    assert [cell["point"].get("reducer.r") for cell in found["cells"]] == [None, 12]
    assert found["clips"] == 10


def test_a_seed_is_that_of_every_cell_and_written_down(tokred: Call, file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    status, out, err = tokred(
        "sweep", file, "--out", run, "--workers", 1, "--seed", 5, "--set", "axes.r=[12]", "--json"
    )
    assert status == 0, err
    found = json.loads(out)
    assert found["seeds"] == [5]
    assert {row["seed"] for row in found["rows"]} == {5}


def test_full_size_is_planned_without_its_files_and_not_run(tokred: Call, file: Path, tmp_path: Path) -> None:
    words = ["sweep", file, "--profile", "full", "--set", "base.clips=null", "--out", tmp_path / "run"]
    status, out, err = tokred(*words, "--dry-run")
    assert (status, err) == (0, "")
    assert "not there: profiles.full.base.checkpoint: no such file: small.pth" in out
    assert "needs: weights and clips" in out
    assert "how many clips is not known" in out
    status, out, err = tokred(*words, "--dry-run", "--json")
    found = json.loads(out)
    assert (found["needs"], found["clips"]) == ("weights and clips", None)
    assert {cell["cell"] for cell in found["cells"]} == {None}
    assert all(cell["full_gmac"] > 30 for cell in found["cells"] if cell["state"] != "excluded")
    status, out, err = tokred(*words)
    assert (status, out) == (2, "")
    assert "no such file: small.pth" in err
    assert err.strip().endswith("profiles.full.needs: weights and clips")


def test_several_files_share_their_cells_and_have_a_folder_each(tokred, tmp_path) -> None:
    for name, orders in (("one", "[FBF, BFB]"), ("two", "[BFB, FFF]")):
        (tmp_path / f"{name}.yaml").write_text(
            f"name: {name}\nbase: {{clips: 4, reducer: 'sta:r=22'}}\naxes:\n  - {{reducer.order: {orders}}}\n"
        )
    files, out = [tmp_path / "one.yaml", tmp_path / "two.yaml"], tmp_path / "out"
    done = tokred("sweep", *files, "--out", out, "--workers", 1)
    assert done.status == 0, done.err
    assert (out / "one" / "sweep.json").exists()
    assert (out / "two" / "report.html").exists()
    assert len(list((out / "cells").glob("*.npz"))) == 4, "the unreduced cell and BFB are computed once"
    again = tokred("sweep", *files, "--out", out, "--workers", 1)
    assert again.status == 0
    assert "computing" not in again.err


def test_two_files_of_one_name_are_refused(tokred, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("name: same\nbase: {clips: 4, reducer: 'sta:r=22'}\n")
    done = tokred("sweep", tmp_path / "a.yaml", tmp_path / "b.yaml", "--out", tmp_path / "out")
    assert done.status == 2
    assert "one name" in done.err
