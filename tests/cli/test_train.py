"""``tokred train``: bad recipes are one line, a small recipe trains and resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

Call = Callable[..., tuple[int, str, str]]


def test_a_wrong_recipe_is_one_line(tokred: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("name: x\nsede: 3\n")
    status, _, err = tokred("train", recipe, "--out", tmp_path / "run")
    assert status == 2
    assert "sede" in err
    assert "seed" in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


def test_yaml_cannot_build_objects(tokred: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "evil.yaml"
    recipe.write_text(f"name: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n")
    status, _, err = tokred("train", recipe, "--out", tmp_path / "run")
    assert status == 2
    assert not (tmp_path / "made").exists()
    assert "Traceback" not in err


def test_a_recipe_for_pictures_asks_where_they_lie(tokred: Call, tmp_path: Path) -> None:
    recipe = Path(__file__).parents[2] / "experiments" / "train_vit_nano.yaml"
    status, _, err = tokred("train", recipe, "--out", tmp_path / "run")
    assert status == 2
    assert "--data PATH" in err
    status, _, err = tokred("train", recipe, "--data", tmp_path, "--out", tmp_path / "run")
    assert status == 2
    assert "no CIFAR-10 in" in err
    assert len(err.strip().splitlines()) == 1


SMALL = """
name: tiny
model: {patch_size: 4, dim: 12, depth: 6, num_heads: 2}
data: {size: 16, frames: 4}
batch_size: 4
micro_batch: 2
precision: fp32
attention: ATTENTION
optimizer: {warmup: 2}
stages: [{name: all, steps: 2, lr: [0.01, 0.0]}]
evaluation: {clips: 4, stage_clips: 4}
"""


def test_a_reducer_can_be_switched_on_in_any_recipe(tokred: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(SMALL.replace("ATTENTION", "fused"))
    found = {}
    for name, words in {"without": (), "with": ("--reducer", "sta:r=4")}.items():
        status, out, err = tokred("train", recipe, "--out", tmp_path / name, "--threads", "1", *words)
        assert status == 0, out + err
        with safe_open(str(tmp_path / name / "tiny.safetensors"), "pt") as file:
            found[name] = file.get_tensor("head.weight")
            assert json.loads(file.metadata()["spec"])["reducer"] == (words[1] if words else None)
    assert not torch.equal(found["without"], found["with"])


def test_a_reducer_that_cannot_be_trained_with_is_one_line(tokred: Call, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(SMALL.replace("ATTENTION", "fused"))
    for spec, word in (("stab:r=4", "did you mean sta"), ("sta:r=999", "999")):
        status, _, err = tokred("train", recipe, "--out", tmp_path / "run", "--reducer", spec)
        assert status == 2, err
        assert word in err
        assert len(err.strip().splitlines()) == 1
