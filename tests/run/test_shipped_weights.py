"""The weights inside the package, their recipe and their log belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import tokred
import tokred.backbones
from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.spec import backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.data.pictures import PictureSource, read_cifar10
from tokred.data.synthetic import SyntheticActions
from tokred.data.views import Views
from tokred.learned import untrained
from tokred.run.sanity import accuracies
from tokred.run.train_spec import TrainSpec, load_spec

ROOT = Path(__file__).parents[2]


NANOS = {"train_nano": (0.88, 0.97), "train_videoswin_nano": (0.88, 0.98), "train_vivit_nano": (0.88, 0.98)}
"""Recipe of a shipped backbone -> range of its accuracies: good, and not so good that there is nothing to lose."""


@pytest.mark.parametrize("recipe", list(NANOS))
def test_the_committed_recipe_is_the_one_in_the_weights(recipe: str) -> None:
    spec = load_spec(ROOT / "experiments" / f"{recipe}.yaml")
    path = Path(tokred.backbones.__file__).parent / "weights" / f"{spec.name}.safetensors"
    assert path.stat().st_size < 4_000_000
    with safe_open(str(path), "pt") as handle:
        header = handle.metadata()
    assert TrainSpec.model_validate_json(header["spec"]) == spec
    top1 = json.loads(header["top1"])
    log = [json.loads(line) for line in (ROOT / f"experiments/logs/{recipe}.jsonl").read_text().splitlines()]
    assert log[-1]["event"] == "final"
    assert log[-1]["top1"] == top1
    assert log[-1]["step"] == spec.steps
    least, most = NANOS[recipe]
    assert all(least <= value <= most for value in top1["intact"].values())
    assert top1["shuffled"]["motion"] < 0.5
    assert top1["single_tubelet"]["motion"] < 0.25


@pytest.mark.parametrize("name", ["videomae_vit_nano", "videoswin_nano", "vivit_nano"])
def test_the_shipped_model_does_what_its_header_says(name: str) -> None:
    found = accuracies(create_backbone(name), SyntheticActions(80), 2, only=["intact", "single_tubelet"])
    assert min(found["intact"].values()) > 0.8
    assert found["single_tubelet"]["motion"] < 0.3


def test_the_image_model_belongs_to_its_recipe_and_log() -> None:
    spec = load_spec(ROOT / "experiments" / "train_vit_nano.yaml")
    path = Path(tokred.backbones.__file__).parent / "weights" / f"{spec.name}.safetensors"
    assert path.stat().st_size < 2_000_000
    with safe_open(str(path), "pt") as handle:
        header = handle.metadata()
    assert TrainSpec.model_validate_json(header["spec"]) == spec
    log = [json.loads(line) for line in (ROOT / "experiments/logs/train_vit_nano.jsonl").read_text().splitlines()]
    assert log[-1]["event"] == "final"
    assert log[-1]["step"] == spec.steps
    assert log[-1]["top1"] == json.loads(header["top1"])
    assert log[-1]["top1"]["intact"]["class"] > 0.65


def test_the_image_model_is_right_as_often_as_its_header_says(shared: Path) -> None:
    place = shared / "data" / "cifar10"
    if not place.is_dir():
        pytest.skip(f"no CIFAR-10 in {place}")
    model = create_backbone("vit_nano")
    info = backbone_info(model)
    assert info is not None
    look = info.spec
    source = PictureSource(read_cifar10(place).thinned(400), Views(look.size, look.mean, look.std))
    right = 0
    for batch in source.batches(100):
        with torch.inference_mode():
            right += int((model(look.arrange(batch.clips)).argmax(-1) == batch.labels["class"]).sum())
    assert 0.62 < right / 400 < 0.78


def test_learned_parameters_belong_to_the_backbone_beside_them_and_to_their_recipe() -> None:
    folder = Path(tokred.backbones.__file__).parent / "weights"
    recipes = {path.stem: load_spec(path) for path in (ROOT / "experiments").glob("*_nano.yaml")}
    by_name = {spec.name: (stem, spec) for stem, spec in recipes.items()}
    paths = sorted(folder.glob("*-*.safetensors"))
    assert sum(path.stat().st_size for path in paths) < 8_000_000
    for path in paths:
        with safe_open(str(path), "pt") as handle:
            header = handle.metadata()
        stem, spec = by_name[path.stem]
        assert TrainSpec.model_validate_json(header["spec"]) == spec
        assert path.stem == f"{header['method']}-{header['backbone']}"
        backbone = create_backbone(header["backbone"])
        assert header["backbone_sha256"] == weights_digest(backbone), f"{path.name} was trained on other weights"
        log = [json.loads(line) for line in (ROOT / f"experiments/logs/{stem}.jsonl").read_text().splitlines()]
        assert log[-1]["top1"] == json.loads(header["top1"])
        reducer = tokred.build(header["method"])
        tokred.attach(backbone, reducer)
        assert untrained(reducer) == []
