"""Training on pictures: the same promises as for clips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tokred.run.train as engine
from tokred.backbones.zoo import create_backbone
from tokred.data.lists import DataError
from tokred.run.train import train
from tokred.run.train_export import TrainResult
from tokred.run.train_image_start import mimetic, whiten
from tokred.run.train_images import ImageRun, PictureSets, augment, seen_logits
from tokred.run.train_spec import SpecError, TrainSpec, parse_spec

SIZES = {"img_size": 16, "patch_size": 4, "dim": 24, "depth": 2, "num_heads": 3}


def recipe(**changes: Any) -> TrainSpec:
    """A recipe of six steps that takes about a second."""
    content: dict[str, Any] = {
        "name": "tiny",
        "model": {"kind": "vit", "patch_size": 4, "dim": 24, "depth": 2, "num_heads": 3},
        "data": {"kind": "cifar10", "size": 16, "shift": 1, "validation": 10},
        "batch_size": 8,
        "micro_batch": 4,
        "optimizer": {"warmup": 2},
        "stages": [
            {"name": "few", "steps": 3, "lr": [0.003, 0.003], "tokens": 0.5},
            {"name": "all", "steps": 3, "lr": [0.003, 0.0]},
        ],
        "evaluation": {"clips": 20, "stage_clips": 10},
    }
    return parse_spec(content | changes)


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10 in small, as binary files: the class is the brightness, in stripes."""
    folder = tmp_path_factory.mktemp("data") / "cifar-10-batches-bin"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = []
        for number in range(20):
            label = number % 10
            stripes = np.where(np.arange(32) % 2, 20 * label, 25 * label) + rng.integers(0, 20, (3, 32, 32))
            records.append(bytes([label]) + stripes.astype(np.uint8).tobytes())
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return folder.parent


def quiet(line: str) -> None:
    """Takes the lines for people."""


def state(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def events(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "clips_per_s"} for line in lines]


def run(spec: TrainSpec, folder: Path, data: Path | None, **options: Any) -> TrainResult:
    settings = {"say": quiet, "log_every": 2, "checkpoint_every": 1, "threads": 1} | options
    return train(spec, folder, data=data, **settings)


def test_a_run_leaves_weights_that_the_backbone_loads(tmp_path: Path, cifar: Path) -> None:
    result = run(recipe(), tmp_path, cifar)
    assert result.step == 6
    assert set(result.accuracy) == {"intact"}
    assert 0 <= result.accuracy["intact"]["class"] <= 1
    log = events(tmp_path)
    assert [e["stage"] for e in log if e.get("event") == "stage"] == ["few", "all"]
    assert log[-1] == {**log[-1], "event": "final", "clips": 20, "top1": result.accuracy}
    model = create_backbone("vit_nano", result.weights, **SIZES)
    assert torch.equal(state(model), state(result.model))
    assert result.weights.stat().st_size < 100_000


def test_threads_and_interruptions_change_no_weight(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(recipe(), tmp_path / "whole", cifar)
    advance, count = engine.Run.advance, 0

    def stop(self: engine.Run) -> dict[str, Any]:
        nonlocal count
        count += 1
        if count == 5:
            raise RuntimeError("killed")
        return advance(self)

    monkeypatch.setattr(engine.Run, "advance", stop)
    with pytest.raises(RuntimeError, match="killed"):
        run(recipe(), tmp_path / "cut", cifar, threads=2)
    again = run(recipe(), tmp_path / "cut", cifar, threads=2)
    assert torch.equal(state(whole.model), state(again.model))
    assert events(tmp_path / "whole") == events(tmp_path / "cut")


def test_the_loss_falls(tmp_path: Path, cifar: Path) -> None:
    stages = [{"name": "all", "steps": 60, "lr": [0.003, 0.0]}]
    result = run(recipe(stages=stages, precision="fp32"), tmp_path, cifar, log_every=10)
    losses = [e["loss"] for e in events(tmp_path) if "loss" in e]
    assert losses[-1] < 0.75 * losses[0]
    assert result.accuracy["intact"]["class"] > 0.25


def test_a_model_trains_with_a_reducer_attached(tmp_path: Path, cifar: Path) -> None:
    stages = [{"name": "reduced", "steps": 2, "lr": [0.003, 0.0]}]
    result = run(recipe(reducer="tome:r=2", attention="fused", precision="fp32", stages=stages), tmp_path, cifar)
    create_backbone("vit_nano", result.weights, **SIZES)


def test_validation_pictures_are_never_trained_on(cifar: Path) -> None:
    spec = recipe().data
    sets = PictureSets(spec, cifar)  # type: ignore[arg-type]
    names = [set(part.pictures.names) for part in (sets.training, sets.validation, sets.test)]
    assert [len(part) for part in names] == [90, 10, 20]
    assert not names[0] & names[1]
    assert sets.pixels.shape == (90, 3, 16, 16)
    again = PictureSets(spec, cifar)  # type: ignore[arg-type]
    assert torch.equal(sets.labels, again.labels)
    with pytest.raises(ValueError, match=r"data\.validation = 100 leaves nothing of 100"):
        PictureSets(recipe(data={"kind": "cifar10", "size": 16, "validation": 100}).data, cifar)  # type: ignore[arg-type]


def test_each_pass_shows_every_picture_once_in_another_order(tmp_path: Path, cifar: Path) -> None:
    with engine.workers(1) as crew:
        trainer = ImageRun(recipe(), tmp_path, False, torch.device("cpu"), crew, quiet, cifar)
        places = [trainer.engine._place(number) for number in range(180)]  # type: ignore[attr-defined]
    assert sorted(places[:90]) == sorted(places[90:]) == list(range(90))
    assert places[:90] != places[90:]


def test_pictures_are_shifted_and_flipped_and_nothing_else() -> None:
    pictures = torch.arange(1, 1 + 3 * 5 * 5).view(1, 3, 5, 5).to(torch.uint8).expand(40, -1, -1, -1)
    found = augment(pictures, 1, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(pictures[0], (1, 1, 1, 1))
    windows = [padded[:, y : y + 5, x : x + 5] for y in range(3) for x in range(3)]
    wanted = [window for one in windows for window in (one, one.flip(-1))]
    seen = {next(i for i, window in enumerate(wanted) if torch.equal(picture, window)) for picture in found}
    assert len(seen) > 10
    still = augment(pictures[:8], 0, torch.Generator().manual_seed(0))
    assert all(torch.equal(picture, pictures[0]) or torch.equal(picture, pictures[0].flip(-1)) for picture in still)


def test_seeing_all_patches_is_the_models_own_forward() -> None:
    model = create_backbone("vit_nano", pretrained=False, **SIZES)
    pictures = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        every = seen_logits(model, pictures, torch.arange(16).expand(2, -1))
        torch.testing.assert_close(every, model(pictures))
        some = seen_logits(model, pictures, torch.arange(8).expand(2, -1))
        pictures[:, :, 8:] = 0  # the lower half is not seen
        torch.testing.assert_close(some, seen_logits(model, pictures, torch.arange(8).expand(2, -1)))


def test_whitened_patches_are_uncorrelated_and_centred() -> None:
    model = create_backbone("vit_nano", pretrained=False, **{**SIZES, "dim": 48})
    coarse = torch.rand(400, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    pictures = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
    pictures = pictures + 0.3 * torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1))
    whiten(model, pictures)
    with torch.inference_mode():
        found = model.patch_embed(pictures).flatten(0, 1)
    assert found.mean(0).abs().max() < 0.02
    torch.testing.assert_close(torch.cov(found.T), torch.eye(48), atol=0.02, rtol=0)


def test_attention_starts_with_tokens_that_look_at_their_like() -> None:
    torch.manual_seed(0)
    model: Any = create_backbone("vit_nano", pretrained=False)
    mimetic(model)
    width, heads = 96, 3
    qkv = model.blocks[1].attn.qkv.weight.detach()
    for head in range(heads):
        rows = slice(head * 32, head * 32 + 32)
        product = qkv[:width][rows].T @ qkv[width : 2 * width][rows]
        assert product.trace() / width > 0.3
    product = qkv[2 * width :].T @ model.blocks[1].attn.proj.weight.detach().T
    assert abs(product.trace() / width + 0.4) < 0.1
    assert model.pos_embed[0, 1:].std() > 0.5


def test_the_place_of_the_data_is_needed_and_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"say where it lies \(--data PATH\)"):
        run(recipe(), tmp_path, None)
    with pytest.raises(DataError, match="no CIFAR-10 in"):
        run(recipe(), tmp_path, tmp_path)
    clips = {"name": "x", "stages": [{"name": "a", "steps": 1, "lr": [0.1, 0.1]}]}
    with pytest.raises(ValueError, match="is not for this recipe"):
        run(parse_spec(clips), tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {}}, "model.kind = vit and data.kind = cifar10 need each other"),
        ({"data": {}}, "model.kind = vit and data.kind = cifar10 need each other"),
        ({"data": {"kind": "cifar100"}}, "kind must be one of synthetic, cifar10"),
        ({"data": {"kind": "cifar10", "shfit": 1}}, "data.shfit: unknown key; did you mean shift"),
        ({"model": {"kind": "vit", "tubelet_size": 2}}, "model.tubelet_size: unknown key; allowed: depth"),
        ({"model": {"kind": "vit", "dim": 32}}, "num_heads = 3 does not divide dim = 32"),
        ({"model": {"kind": "vit", "dim": 18}}, "dim = 18 is no multiple of 4"),
        ({"model": {"kind": "vit", "patch_size": 5}}, "model.patch_size = 5 does not divide data.size = 16"),
        (
            {"stages": [{"name": "a", "steps": 1, "lr": [0.1, 0.1], "aux": 1.0, "hold": 0.5}]},
            "stage a: aux, hold have no meaning for pictures",
        ),
    ],
)
def test_recipes_that_do_not_go_together_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        recipe(**changes)
