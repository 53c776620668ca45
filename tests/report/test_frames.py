"""Runs of any kind as one frame."""

from __future__ import annotations

import json

import pytest
from sweeps import curves, sweep

import tokred
from tokred.report.frames import load_run, mean


@pytest.fixture
def runs(tmp_path):
    for name, found in (("order", sweep()), ("curves", curves())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.json").write_text(json.dumps(found))
    return tmp_path


def test_runs_are_joined_and_keep_their_names(runs) -> None:
    frame = tokred.results(runs / "order", runs / "curves")
    assert frame.groupby("run").size().to_dict() == {"order": 3, "curves": 8}
    assert frame["gmac"].notna().all()


def test_a_folder_of_runs_stands_for_all_of_them(runs) -> None:
    assert len(tokred.results(runs)) == 11


def test_a_comparison_has_the_same_columns(tmp_path) -> None:
    found = {
        "schema": 1,
        "kind": "compare",
        "title": "t",
        "backbone": {"name": "b"},
        "data": {"name": "d", "label_sets": []},
        "settings": {"seed": 3},
        "rows": [{"id": "x", "method": "none", "reducer": "none", "status": "done", "gmac": 1.0}],
    }
    (tmp_path / "results.json").write_text(json.dumps(found))
    frame = tokred.results(tmp_path)
    assert frame.loc[0, ["kind", "cell", "backbone", "data", "seed"]].tolist() == ["compare", "x", "b", "d", 3]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": 2, "rows": []}', '{"schema": 1, "kind": "other", "rows": []}', '{"schema": 1}']
)
def test_what_is_no_run_is_refused_in_one_line(tmp_path, text) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(ValueError, match=r"results\.json is not") as error:
        load_run(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="is not a run"):
        load_run(tmp_path / "missing")


def test_a_curve_is_summed_up_by_its_mean() -> None:
    assert mean([1.0, None, 3.0]) == 2.0
    assert mean([None]) is None
    assert mean(4) == 4.0
