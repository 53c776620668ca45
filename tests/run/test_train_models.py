"""Recipes that train a video Swin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tokred.backbones.convert import load_checkpoint
from tokred.backbones.videoswin import VideoSwin
from tokred.run.train import build_model, train
from tokred.run.train_models import VideoSwinSpec, VideoViTSpec
from tokred.run.train_spec import SpecError, TrainSpec, parse_spec

SWIN = {"kind": "videoswin", "dim": 8, "depths": [2, 1], "num_heads": [1, 2], "window": [2, 2, 2]}


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


def quiet(line: str) -> None:
    """Takes the lines for people."""


def test_a_run_trains_exports_and_repeats(tmp_path: Path) -> None:
    result = train(recipe(), tmp_path / "a", threads=1, log_every=2, say=quiet)
    again = train(recipe(), tmp_path / "b", threads=2, log_every=2, say=quiet)
    fresh = VideoSwin(img_size=16, frames=8, dim=8, depths=(2, 1), num_heads=(1, 2), window=(2, 2, 2), num_classes=18)
    start = build_model(recipe()).state_dict()
    assert load_checkpoint(fresh, result.weights).layout == "tokred-swin"
    other = again.model.state_dict()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name])
        assert torch.equal(tensor, other[name]), "the number of threads changed the weights"
        assert not torch.equal(tensor, start[name]), f"{name} was not trained"
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
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


@pytest.mark.parametrize(("stage", "stride", "widths"), [(0, 4, (8, 16)), (1, 8, (16, 16))])
def test_auxiliary_heads_read_the_chosen_stage(stage: int, stride: int, widths: tuple[int, int]) -> None:
    spec = VideoSwinSpec.model_validate({**SWIN, "auxiliary_stage": stage})
    assert (spec.auxiliary_stride, spec.widths, spec.stride, spec.tubelet) == (stride, widths, 8, 2)


def test_a_video_vit_reads_its_last_block() -> None:
    spec = VideoViTSpec(patch_size=4, dim=12)
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
        ({"stages": [{"name": "a", "steps": 1, "lr": [0.1, 0.1], "frames": 5}]}, "frames = 5"),
    ],
)
def test_what_cannot_be_trained_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        recipe(**changed)
