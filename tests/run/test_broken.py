"""NaN and infinity in a comparison: the clip or the row that has them is named, the others are as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokred.run import compare as module
from tokred.run.broken import broken_items, why_broken, without
from tokred.run.compare import compare
from tokred.run.evaluate import Predictions
from tokred.run.results import failures_of
from tokred.run.settings import CompareSettings

SETTINGS = CompareSettings(clips=5, reducers=("grid:keep=0.5", "random_drop:keep=0.5"), timing_seconds=0.0)
Spoil = Callable[[str, Predictions], None]


def predictions() -> Predictions:
    """Four views of three items."""
    logits, features = np.ones((4, 2), np.float32), np.ones((4, 3), np.float32)
    return Predictions(logits, features, np.array([0, 1, 1, 2]), {"all": np.array([0, 1, 1, 0])})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_item_is_broken_if_one_of_its_views_is_in_logits_or_features(bad: float) -> None:
    found = predictions()
    assert broken_items(found) == []
    found.logits[2, 1] = bad
    assert broken_items(found) == [1]
    found.features[0, 0] = bad
    assert broken_items(found) == [0, 1]
    assert why_broken(found, lambda item: f"clip {item}.mp4") == (
        "its answers are NaN or infinite on 2 of 3 clips, first: clip 0.mp4"
    )
    assert why_broken(predictions(), str) is None


def test_all_views_of_an_item_are_left_out_together() -> None:
    left = without(predictions(), [1])
    assert left is not None
    assert left.items.tolist() == [0, 2]
    assert left.labels["all"].tolist() == [0, 0]
    assert left.logits.shape == (2, 2)
    assert without(predictions(), [0, 1, 2]) is None


def spoiled(monkeypatch: pytest.MonkeyPatch, out: Path, spoil: Spoil) -> dict[str, Any]:
    """A comparison whose models answer as ``spoil`` has it."""
    original = module.predict

    def predict(model: Any, *args: Any, **kwargs: Any) -> Predictions:
        found = original(model, *args, **kwargs)
        spoil(model.reducer.method, found)
        return found

    monkeypatch.setattr(module, "predict", predict)
    return compare(SETTINGS, out)


def test_a_clip_that_the_unreduced_model_cannot_answer_is_left_out_for_all_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spoil(method: str, found: Predictions) -> None:
        found.logits[3] = np.nan

    results = spoiled(monkeypatch, tmp_path, spoil)
    assert [row["status"] for row in results["rows"]] == ["done"] * 3
    assert [row["accuracy"]["motion"]["n"] for row in results["rows"]] == [4] * 3
    (failure,) = results["data"]["failures"]
    assert "the unreduced model's answer is NaN or infinite: left out of every row" in failure["reason"]
    assert failures_of(results, asked_for=True)[0].path == failure["path"]
    again = compare(SETTINGS, tmp_path)  # from the kept cells
    assert again["data"]["failures"] == results["data"]["failures"]


def test_a_row_that_is_not_finite_where_the_unreduced_model_is_has_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def spoil(method: str, found: Predictions) -> None:
        if method == "grid":
            found.features[1] = np.inf

    results = spoiled(monkeypatch, tmp_path, spoil)
    assert [row["status"] for row in results["rows"]] == ["done", "failed", "done"]
    assert "NaN or infinite on 1 of 5 clips" in results["rows"][1]["reason"]
    assert results["rows"][1]["accuracy"] == {}
    assert results["rows"][2]["accuracy"]["motion"]["n"] == 5
    assert results["data"]["failures"] == []


def test_a_model_that_answers_nothing_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def spoil(method: str, found: Predictions) -> None:
        found.logits[:] = np.nan

    results = spoiled(monkeypatch, tmp_path, spoil)
    assert [row["status"] for row in results["rows"]] == ["failed"] * 3
    assert all("on every clip" in row["reason"] for row in results["rows"])
    assert results["data"]["failures"] == []
