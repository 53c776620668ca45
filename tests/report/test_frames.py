"""Runs of any kind as one frame."""

from __future__ import annotations

import json

import pytest
from sweeps import curves, measured, sweep

import tokred
from tokred.report.frames import full_off, load_run, mean, point_rows, sweep_frame


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


def test_the_frame_has_one_line_per_point_with_the_axes_as_columns() -> None:
    frame = sweep_frame(sweep())
    assert list(frame["reducer.order"]) == ["FBF", "BBB", "BFF"]
    assert frame.loc[0, "motion_top1"] == 0.9
    assert frame.loc[0, "paper_value"] == 84.96
    assert frame.loc[0, "full_gmac_vs_printed"] == pytest.approx(308.7 / 308.0 - 1)
    assert list(frame["status"]) == ["done", "done", "excluded"]


def test_all_measures_of_a_point_are_one_line_that_leads_to_every_cell() -> None:
    frame = sweep_frame(measured())
    assert len(frame) == 2
    line = frame.loc[0]
    assert (line["measure"], line["status"]) == ("predict trajectory carried", "done")
    assert (line["motion_top1"], line["trajectory"], line["patches_carried"]) == (0.9, 3.5, 0.5)
    assert line["kl"] == 0.1
    assert line["cell"] == line["cell_predict"] == "sta-p"
    assert (line["cell_trajectory"], line["cell_carried"]) == ("sta-t", "sta-c")
    assert line["seconds"] == 6.0
    assert line["notes"] == "of the curve"


def test_the_order_of_the_measures_loses_nothing() -> None:
    found = measured()
    found["rows"][:3] = [found["rows"][place] for place in (1, 2, 0)]
    line = sweep_frame(found).loc[0]
    assert (line["kl"], line["motion_top1"], line["cell"]) == (0.1, 0.9, "sta-t")


def test_calibration_has_columns_of_its_label_set() -> None:
    frame = sweep_frame(measured())
    names = ("ece", "ece_low", "ece_high", "brier", "brier_low", "brier_high", "confidence")
    assert frame.loc[0, [f"motion_{name}" for name in names]].tolist() == [0.05, 0.04, 0.07, 0.2, 0.1, 0.3, 0.9]


def test_a_point_is_done_when_all_its_measures_are() -> None:
    found = measured()
    found["rows"][1] |= {"status": "pending"}
    found["rows"][2] |= {"status": "failed", "reason": "nothing can be traced"}
    partly, done = point_rows(found)
    assert (partly["status"], partly["reason"]) == (
        "partly done",
        "trajectory: pending; carried: nothing can be traced",
    )
    assert (done["status"], done["reason"]) == ("done", None)
    found["rows"][0] |= {"status": "failed", "reason": "no memory"}
    assert point_rows(found)[0]["status"] == "failed"


def test_the_same_point_with_another_seed_is_another_line() -> None:
    found = sweep()
    found["rows"][1]["point"] = {**found["rows"][0]["point"], "seed": 1}
    assert len(point_rows(found)) == 3


def test_a_cost_without_a_printed_one_is_not_off() -> None:
    assert full_off({"full_gmac": 110.0, "paper": {"gflops": 100.0}}) == pytest.approx(0.1)
    assert full_off({"full_gmac": None, "paper": {"gflops": 100.0}}) is None
    assert full_off({"full_gmac": 110.0, "paper": None}) is None
    assert full_off({"full_gmac": 110.0, "paper": {"gflops": None}}) is None
