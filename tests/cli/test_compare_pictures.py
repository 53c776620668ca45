"""``tokred compare`` on pictures: still ones for image models, animated ones for video models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tokred.backbones import zoo
from tokred.backbones.image_vit import build_image_vit, save_image_vit

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the weights of vit_nano."""
    torch.manual_seed(0)
    model = build_image_vit()
    save_image_vit(model.state_dict(), tmp_path / "vit_nano.safetensors", source="x", dtype=torch.float16, metadata={})
    monkeypatch.setattr(zoo, "WEIGHTS_FOLDER", tmp_path)


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Eight test pictures of CIFAR-10, as a binary file."""
    rng = np.random.default_rng(0)
    records = [bytes([label]) + rng.integers(0, 256, 3072, dtype=np.uint8).tobytes() for label in range(8)]
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"".join(records))
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures in two class folders, one of them broken."""
    for number in range(4):
        file = tmp_path / "some" / ("cat", "dog")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
    (tmp_path / "some" / "dog" / "3.png").write_bytes(b"text")
    return tmp_path / "some"


@pytest.mark.usefixtures("weights")
def test_an_image_model_on_cifar10(tokred: Call, tmp_path: Path, cifar: Path) -> None:
    words = ("compare", "--backbone", "vit_nano", "--data", f"cifar10:{cifar}", "--reducers", "evit:keep=0.7,tome:r=4")
    status, out, err = tokred(*words, "--timing", 0.01, "--json", "--out", tmp_path / "run")
    assert status == 0, err
    results = json.loads(out)
    assert [row["status"] for row in results["rows"]] == ["done"] * 3
    assert [list(row["accuracy"]) for row in results["rows"]] == [["class"]] * 3
    assert results["rows"][1]["accuracy"]["class"]["n"] == 8
    assert results["data"]["unit"] == "image"
    assert results["settings"]["batch_size"] > 8, "images are small: more of them fit a batch"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "images/s" in page
    assert "clips/s" not in page


def test_animated_pictures_for_a_video_model(tokred: Call, tmp_path: Path, folder: Path) -> None:
    words = ("compare", "--data", f"images:{folder}", "--animate", "--reducers", "sta:r=12", "--timing", 0)
    status, out, err = tokred(*words, "--json", "--out", tmp_path / "run")
    assert status == 1
    assert "1 failed: dog/3.png" in err
    results = json.loads(out)
    assert results["data"]["failures"][0]["path"] == "dog/3.png"
    none, sta = results["rows"]
    assert list(none["accuracy"]) == list(sta["accuracy"]) == ["motion"], "the model does not tell cats from dogs"
    assert sta["accuracy"]["motion"]["n"] == 3
    assert any("no accuracy for class (cat, dog)" in note for note in results["data"]["notes"])
    assert 0 <= sta["agreement"]["value"] <= 1
    again = tokred(*words, "--out", tmp_path / "run")
    assert "2 of 2 rows are kept" in again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "images:{}"), "add --animate"),
        (("--data", "images:{}", "--animate", "--backbone", "timm/vit_tiny_patch16_224"), "leave it out"),
        (("--data", "images:{}e", "--animate"), "close: "),
        (("--data", "images:{},sed=3", "--animate"), "did you mean seed?"),
        (("--data", "cifar10:{}", "--animate"), "no CIFAR-10 in"),
        (("--animate",), "--animate is for pictures"),
    ],
)
def test_mistakes_are_one_line(tokred: Call, tmp_path: Path, folder: Path, words: tuple[str, ...], said: str) -> None:
    filled = [word.format(folder) for word in words]
    status, out, err = tokred("compare", *filled, "--reducers", "grid", "--out", tmp_path / "run")
    assert status == 2
    assert said in err
    assert err.startswith("tokred: ")
    assert len(err.strip().splitlines()) == 1
    assert out == ""
