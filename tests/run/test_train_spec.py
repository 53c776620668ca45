"""Recipes of training runs: read, checked, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokred.run.train_spec import SpecError, TrainSpec, load_spec, parse_spec, stage_at


def recipe(**changes: Any) -> TrainSpec:
    """A valid recipe of six steps."""
    content: dict[str, Any] = {
        "name": "tiny",
        "model": {"patch_size": 8, "dim": 12, "depth": 2, "num_heads": 2},
        "data": {"size": 16, "frames": 4},
        "batch_size": 4,
        "micro_batch": 2,
        "optimizer": {"warmup": 2},
        "stages": [
            {"name": "few", "steps": 3, "lr": [0.01, 0.01], "tokens": 0.5, "hold": 0.5, "aux": 1.0},
            {"name": "all", "steps": 3, "lr": [0.01, 0.0]},
        ],
        "evaluation": {"clips": 8, "stage_clips": 4},
    }
    return parse_spec(content | changes)


def test_learning_rate_warms_up_and_follows_the_stages() -> None:
    spec = recipe(optimizer={"warmup": 2})
    rates = [stage_at(spec, step)[1] for step in range(6)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[1:3] == [0.01, 0.01]
    assert rates[3] == pytest.approx(0.01)
    assert rates[3] > rates[4] > rates[5] > 0
    assert [stage_at(spec, step)[0].name for step in (2, 3)] == ["few", "all"]
    with pytest.raises(ValueError, match="beyond"):
        stage_at(spec, 6)


def test_every_error_of_a_recipe_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "name: x\nbatchsize: 3\nmodel: {dept: 3, dim: 10, num_heads: 3}\noptimizer: {clip: -1}\n"
        "stages: [{name: a, steps: 0, lr: [0.1, 0.0], hld: 1}]\n"
    )
    with pytest.raises(SpecError, match="problem") as caught:
        load_spec(file)
    text = str(caught.value)
    for expected in (
        str(file),
        "batchsize: unknown key; did you mean batch_size",
        "model.dept: unknown key; did you mean depth",
        "optimizer.clip: -1 is not ",
        "stages.0.steps",
        "stages.0.hld: unknown key; did you mean hold",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"micro_batch": 3}, "micro_batch = 3 does not divide batch_size = 4"),
        ({"model": {"dim": 10, "num_heads": 3}}, "num_heads = 3 does not divide dim = 10"),
        ({"model": {"patch_size": 5}}, "patch_size = 5 does not divide"),
        ({"data": {"size": 16, "frames": 5}}, "frames = 5"),
        ({"reducer": "tome:r=2"}, "reducer"),
        ({"stages": []}, "stages"),
        ({"name": None}, "name"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        recipe(**changed)


@pytest.mark.parametrize("text", ["- a list", "name: [unclosed", ""])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(SpecError, match=r"recipe\.yaml"):
        load_spec(file)
    with pytest.raises(SpecError, match=r"missing\.yaml"):
        load_spec(tmp_path / "missing.yaml")
