"""The main job at small size: what it writes, that it resumes, and that nothing finished is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tokred.run import compare as module
from tokred.run.compare import compare
from tokred.run.results import failures_of
from tokred.run.settings import CompareSettings, default_out

SETTINGS = CompareSettings(clips=6, reducers=("sta:r=12", "random_drop:keep=0.6", "sta:r=64"), timing_seconds=0.0)


def stable(results: dict) -> list[dict]:
    """The rows without what may differ between two runs of the same settings: times."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "speed")} for row in results["rows"]]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, compare(SETTINGS, folder)


def test_rows_are_scored_against_the_unreduced_model(run) -> None:
    _, results = run
    none, sta, random_drop, refused = results["rows"]
    assert [row["status"] for row in results["rows"]] == ["done", "done", "done", "refused"]
    assert set(none["accuracy"]) == {"appearance", "motion"}
    assert none["accuracy"]["motion"]["diff"] is None
    for row in (sta, random_drop):
        for numbers in row["accuracy"].values():
            assert numbers["low"] <= numbers["top1"] <= numbers["high"]
            assert numbers["n"] == 6
            assert numbers["diff_low"] <= numbers["diff"] <= numbers["diff_high"]
        assert 0 < row["gmac_share"] < 1
        assert row["kl"] >= 0
    assert sta["tokens_per_block"][1] == 8 * (64 - 12)
    assert "64" in refused["reason"]


def test_what_lies_on_disk_is_what_was_returned(run) -> None:
    folder, results = run
    assert json.loads((folder / "results.json").read_text()) == json.loads(json.dumps(results))
    assert len(list((folder / "cells").glob("*.json"))) == 3


def test_the_same_seed_gives_the_same_table(run, tmp_path) -> None:
    assert stable(compare(SETTINGS, tmp_path)) == stable(run[1])


def test_a_second_start_computes_only_what_is_missing(run, tmp_path, monkeypatch) -> None:
    first = compare(SETTINGS, tmp_path)
    (tmp_path / "cells" / f"{first['rows'][1]['id']}.json").unlink()
    computed = []
    original = module.predict
    monkeypatch.setattr(module, "predict", lambda model, *a, **k: computed.append(model) or original(model, *a, **k))
    again = compare(SETTINGS, tmp_path)
    assert [model.reducer.spec for model in computed] == ["sta:r=12"]
    assert stable(again) == stable(first)


def test_stopping_keeps_the_finished_rows(tmp_path, monkeypatch) -> None:
    original = module.predict
    calls = []

    def stop_at_the_third(model, *args, **kwargs):
        calls.append(model)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(model, *args, **kwargs)

    monkeypatch.setattr(module, "predict", stop_at_the_third)
    results = compare(SETTINGS, tmp_path)
    assert results["complete"] is False
    assert [row["status"] for row in results["rows"]] == ["done", "done", "pending", "refused"]
    monkeypatch.setattr(module, "predict", original)
    assert compare(SETTINGS, tmp_path)["complete"] is True


def test_one_failing_row_never_stops_the_others(tmp_path, monkeypatch) -> None:
    original = module.predict

    def fail_for_sta(model, *args, **kwargs):
        if model.reducer.method == "sta":
            raise RuntimeError("broken reducer")
        return original(model, *args, **kwargs)

    monkeypatch.setattr(module, "predict", fail_for_sta)
    results = compare(SETTINGS, tmp_path)
    assert [row["status"] for row in results["rows"]] == ["done", "failed", "done", "refused"]
    assert "broken reducer" in results["rows"][1]["reason"]
    assert [f.path for f in failures_of(results, asked_for=False)] == ["sta:r=12"]
    assert [f.path for f in failures_of(results, asked_for=True)] == ["sta:r=12", "sta:r=64"]


def test_timing_is_interleaved_and_paired(tmp_path) -> None:
    results = compare(replace(SETTINGS, clips=2, timing_seconds=0.5), tmp_path)
    none, sta = results["rows"][:2]
    assert none["speed"]["speedup"] == 1
    assert sta["speed"]["implied"] == pytest.approx(1 / sta["gmac_share"])
    assert sta["speed"]["clips_per_s"] > 0


def test_the_run_folder_depends_on_the_settings_alone() -> None:
    assert default_out(SETTINGS) == default_out(replace(SETTINGS, fresh=True))
    assert default_out(SETTINGS) != default_out(replace(SETTINGS, seed=1))
