"""``tokred train``: bad recipes are one line, a small recipe trains and resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
