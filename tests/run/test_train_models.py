"""Recipes that train a video Swin, and a factorised ViViT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tokred.backbones.convert import load_checkpoint
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.vivit import ViViT
from tokred.run.train import build_model, train
from tokred.run.train_export import TrainResult
from tokred.run.train_losses import AuxHeads
from tokred.run.train_models import VideoSwinSpec, VideoViTSpec, ViViTSpec
from tokred.run.train_spec import SpecError, TrainSpec, parse_spec
from tokred.run.train_step import StepEngine, Trainee, workers

SWIN = {"kind": "videoswin", "dim": 8, "depths": [2, 1], "num_heads": [1, 2], "window": [2, 2, 2]}
VIVIT = {"kind": "vivit", "patch_size": 4, "dim": 12, "depth": 2, "temporal_depth": 1, "num_heads": 2}


def recipe(**changes: Any) -> TrainSpec:
    """A recipe of four steps."""
    content: dict[str, Any] = {
        "name": "tiny-swin",
        "model": {**SWIN, "auxiliary_stage": 0},
        "data": {"size": 16, "frames": 8},
        "batch_size": 4,
        "micro_batch": 2,
        "stages": [
            {"name": "short", "steps": 2, "lr": [0.01, 0.01], "frames": 4, "hold": 0.5, "aux": 1.0, "shape": 1.0},
            {"name": "whole", "steps": 2, "lr": [0.01, 0.0]},
        ],
        "evaluation": {"clips": 8, "stage_clips": 0},
    }
    return parse_spec(content | changes)


def vivit_recipe(**changes: Any) -> TrainSpec:
    """The same for a ViViT, the first stage with a quarter of the patches."""
    few = {"name": "few", "steps": 2, "lr": [0.01, 0.01], "tokens": 0.25, "hold": 0.5, "aux": 1.0, "shape": 1.0}
    whole = {"name": "whole", "steps": 2, "lr": [0.01, 0.0]}
    return recipe(**{"name": "tiny-vivit", "model": VIVIT, "stages": [few, whole]} | changes)


def quiet(line: str) -> None:
    """Takes the lines for people."""


def trained_as_often(
    fresh: torch.nn.Module, result: TrainResult, again: TrainResult, start: dict[str, torch.Tensor]
) -> list[dict[str, Any]]:
    """The weights were trained, and are those of the file and of the other run; returns the log."""
    other = again.model.state_dict()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name])
        assert torch.equal(tensor, other[name]), "the number of threads changed the weights"
        assert not torch.equal(tensor, start[name]), f"{name} was not trained"
    return [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]


def test_a_run_trains_exports_and_repeats(tmp_path: Path) -> None:
    result = train(recipe(), tmp_path / "a", threads=1, log_every=2, say=quiet)
    again = train(recipe(), tmp_path / "b", threads=2, log_every=2, say=quiet)
    fresh = VideoSwin(img_size=16, frames=8, dim=8, depths=(2, 1), num_heads=(1, 2), window=(2, 2, 2), num_classes=18)
    start = build_model(recipe()).state_dict()
    assert load_checkpoint(fresh, result.weights).layout == "tokred-swin"
    log = trained_as_often(fresh, result, again, start)
    assert "shape_loss" in log[0]
    assert "aux_loss" in log[0]
    assert "shape_loss" not in log[1]


def test_a_stopped_run_goes_on_and_later_stages_may_change(tmp_path: Path) -> None:
    whole = train(recipe(), tmp_path / "whole", threads=1, checkpoint_every=1, say=quiet)
    first = recipe().model_dump()
    first["stages"] = first["stages"][:1]
    train(parse_spec(first), tmp_path / "parts", threads=1, checkpoint_every=1, say=quiet)
    parts = train(recipe(), tmp_path / "parts", threads=1, checkpoint_every=1, say=quiet)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name])


def test_a_factorised_model_trains_exports_and_repeats(tmp_path: Path) -> None:
    result = train(vivit_recipe(), tmp_path / "a", threads=1, log_every=2, say=quiet)
    again = train(vivit_recipe(), tmp_path / "b", threads=2, log_every=2, say=quiet)
    fresh = ViViT(img_size=16, frames=8, patch_size=4, dim=12, depth=2, temporal_depth=1, num_heads=2, num_classes=18)
    start = build_model(vivit_recipe()).state_dict()
    load_checkpoint(fresh, result.weights)
    log = trained_as_often(fresh, result, again, start)
    assert {"aux_loss", "shape_loss"} <= log[0].keys()
    assert not {"aux_loss", "shape_loss"} & log[1].keys()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_each_step_of_a_factorised_model_sees_its_share_of_the_patches(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = vivit_recipe(stages=[{"name": "s", "steps": 1, "lr": [0.01, 0.01], "tokens": share}], precision="fp32")
    seen = []

    def watched(block: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x

    monkeypatch.setattr("tokred.run.train_kernels.explicit_vivit_block", watched)
    with workers(1) as crew:
        engine = StepEngine(spec, Trainee(build_model(spec), None), crew, torch.device("cpu"))
        engine.gradients(0, spec.stages[0])
    # Micro-batches of 2 clips of 4 steps, in two spatial blocks and a temporal one of 4 steps and a class token.
    spatial = (2 * 4, 1 + round(16 * share), 12)
    assert seen == [spatial, spatial, (2, 1 + 4, 12)] * 2


def test_all_patches_in_training_are_the_models_own_forward() -> None:
    spec = vivit_recipe(precision="fp32", stages=[{"name": "s", "steps": 1, "lr": [0.01, 0.01], "aux": 1.0}])
    model = build_model(spec)
    trainee = Trainee(model, AuxHeads(*spec.model.widths, steps=True))
    with workers(1) as crew:
        engine = StepEngine(spec, trainee, crew, torch.device("cpu"))
        figures = engine.gradients(0, spec.stages[0])
        clips = [engine.source(spec.stages[0], hold=True).scene(range(first, first + 2)) for first in (0, 2)]
    losses = []
    for scene in clips:
        logits = model(scene.rendered.clips)
        losses.append(torch.nn.functional.cross_entropy(logits[:, :10], scene.appearance, label_smoothing=0.05))
    assert figures["appearance_loss"] == pytest.approx(float(torch.stack(losses).mean().detach()), rel=1e-4)
    assert trainee.aux is not None
    assert trainee.aux.step is not None
    assert trainee.aux.step.weight.grad is not None
    assert bool(trainee.aux.step.weight.grad.any()), "the class tokens are asked where the object is"


@pytest.mark.parametrize(("stage", "stride", "widths"), [(0, 4, (8, 16)), (1, 8, (16, 16))])
def test_auxiliary_heads_read_the_chosen_stage(stage: int, stride: int, widths: tuple[int, int]) -> None:
    spec = VideoSwinSpec.model_validate({**SWIN, "auxiliary_stage": stage})
    assert (spec.auxiliary_stride, spec.widths, spec.stride, spec.tubelet) == (stride, widths, 8, 2)


def test_a_video_vit_reads_its_last_block() -> None:
    spec = VideoViTSpec(patch_size=4, dim=12)
    assert (spec.auxiliary_stride, spec.widths, spec.stride, spec.tubelet) == (4, (12, 12), 4, 2)


def test_a_vivit_reads_its_last_spatial_block() -> None:
    spec = ViViTSpec(kind="vivit", patch_size=4, dim=12)
    assert (spec.auxiliary_stride, spec.widths, spec.stride, spec.tubelet) == (4, (12, 12), 4, 2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": {**SWIN, "num_heads": [1]}}, "depths has 2 stages, num_heads has 1"),
        ({"model": {**SWIN, "num_heads": [3, 2]}}, "num_heads = 3 does not divide the width 8 of stage 0"),
        ({"model": {**SWIN, "window": [0, 2, 2]}}, "window"),
        ({"model": {**SWIN, "auxiliary_stage": 2}}, "auxiliary_stage = 2"),
        ({"model": {**SWIN, "depht": 2}}, r"model\.depht: unknown key"),
        ({"model": {"kind": "videosvin"}}, "kind must be one of"),
        ({"data": {"size": 24, "frames": 8}, "model": {**SWIN, "patch_size": 8}}, "last stage's patch = 16 does not"),
        ({"stages": [{"name": "a", "steps": 1, "lr": [0.1, 0.1], "tokens": 0.5}]}, "windows need every patch"),
        ({"model": {**VIVIT, "num_heads": 5}}, "num_heads = 5 does not divide dim = 12"),
        ({"model": VIVIT}, "stage short: frames is not for a vivit"),
        (
            {"model": VIVIT, "reducer": "tome:r=1", "stages": [{"name": "a", "steps": 1, "lr": [1, 1], "aux": 1.0}]},
            "aux = 0 and shape = 0 are needed with vivit",
        ),
        ({"stages": [{"name": "a", "steps": 1, "lr": [0.1, 0.1], "frames": 5}]}, "frames = 5"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        recipe(**changed)
