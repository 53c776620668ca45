"""Training a learned reducer on the shipped backbone: what trains, what stays, what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import tokred
from tokred.backbones.convert.digest import weights_digest
from tokred.methods import DynamicViT
from tokred.run.train import build_model, train
from tokred.run.train_learned import (
    HOST,
    backbone_share,
    begin_step,
    gradients_of,
    parameter_groups,
    set_rates,
    teacher_for,
)
from tokred.run.train_spec import SpecError, TrainSpec, parse_spec
from tokred.run.train_step import StepEngine, Trainee, workers

RECIPE: dict[str, Any] = {
    "name": "small",
    "reducer": "dynamicvit:keep=0.6",
    "start": {"backbone": "videomae_vit_nano"},
    "batch_size": 2,
    "micro_batch": 2,
    "precision": "fp32",
    "attention": "fused",
    "optimizer": {"warmup": 0},
    "stages": [{"name": "only", "steps": 2, "lr": [0.001, 0.001], "frames": 4}],
    "evaluation": {"clips": 2, "stage_clips": 0},
}


def recipe(**changes: Any) -> TrainSpec:
    return parse_spec({**RECIPE, **changes})


def start(**changes: Any) -> dict[str, Any]:
    return {"backbone": "videomae_vit_nano", **changes}


def test_a_run_writes_predictors_that_attach_to_the_backbone_that_everybody_has(tmp_path: Path) -> None:
    result = train(recipe(), tmp_path, threads=1, progress=False, say=lambda text: None)
    assert result.weights == tmp_path / "small.safetensors"
    nano = tokred.create_backbone("videomae_vit_nano")
    with safe_open(result.weights, "pt") as file:
        header = file.metadata()
    assert header["backbone"] == "videomae_vit_nano"
    assert header["backbone_sha256"] == weights_digest(nano), "the backbone has not changed by a bit"
    assert json.loads(header["spec"])["reducer"] == "dynamicvit:keep=0.6"
    assert set(json.loads(header["top1"])["intact"]) == {"appearance", "motion"}
    fast = tokred.attach(nano, tokred.build(f"dynamicvit:keep=0.6,weights={result.weights}"))
    assert fast.notes[-1] == "dynamicvit is trained (2 steps, dynamicvit:keep=0.6 on videomae_vit_nano, recipe small)"
    untouched = DynamicViT(0.6)
    tokred.attach(nano, untouched)
    own = dict(untouched.named_parameters())
    moved = [name for name, tensor in fast.reducer.named_parameters() if not torch.equal(tensor, own[name])]
    assert {name.split(".")[1] for name in moved} == {"0", "1", "2"}, "every predictor has trained"
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"ratio_loss", "logits_loss", "tokens_loss", "appearance_loss"} <= set(log[0])
    assert not list(tmp_path.glob("*backbone*"))


def test_a_backbone_that_trains_along_is_written_beside_the_reducer(tmp_path: Path) -> None:
    result = train(recipe(start=start(lr=0.1)), tmp_path, threads=1, progress=False, say=lambda text: None)
    with safe_open(result.weights, "pt") as file:
        assert file.metadata()["backbone"] == "small-backbone"
        digest = file.metadata()["backbone_sha256"]
    beside = tokred.create_backbone("videomae_vit_nano", tmp_path / "small-backbone.safetensors")
    assert weights_digest(beside) == digest
    assert digest != weights_digest(tokred.create_backbone("videomae_vit_nano"))


def test_the_backbone_has_its_own_learning_rate_and_is_frozen_at_first() -> None:
    spec = recipe(start=start(lr=0.01, frozen=1))
    trainee = Trainee(build_model(spec), None)
    optimizer = torch.optim.AdamW(parameter_groups(trainee, spec), lr=1.0)
    assert [backbone_share(spec, step) for step in (0, 1)] == [0.0, 0.01]
    assert backbone_share(recipe(start=None, model={"depth": 2}), 0) == 1.0
    members = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    for name, parameter in trainee.named_parameters():
        wanted = 2 * name.startswith(HOST) + (parameter.ndim < 2)
        assert [id(parameter) in group for group in members].index(True) == wanted, name
    for step, rates in ((0, [0.5, 0.5, 0.0, 0.0]), (1, [0.5, 0.5, 0.005, 0.005])):
        set_rates(optimizer, 0.5, spec, step)
        assert [group["lr"] for group in optimizer.param_groups] == rates
        begin_step(trainee, trainee.model, spec, step)
        frozen = {name for name, p in trainee.named_parameters() if not p.requires_grad}
        assert frozen == ({n for n, _ in trainee.named_parameters() if n.startswith(HOST)} if step == 0 else set())
        assert trainee.model.reducer.step == step  # type: ignore[union-attr]


def test_with_and_without_a_reducer_the_backbone_trains_at_the_same_rates() -> None:
    rates = []
    for reducer in ("sta:r=0", None):
        spec = recipe(reducer=reducer, start=start(lr=0.5))
        trainee = Trainee(build_model(spec), None)
        optimizer = torch.optim.AdamW(parameter_groups(trainee, spec), lr=1.0)
        set_rates(optimizer, 0.1, spec, 0)
        by_place = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        rates.append([by_place[id(p)] for p in trainee.model.parameters()])
    assert rates[0] == rates[1] == [0.05] * len(rates[0])


def test_training_starts_from_a_file_that_a_training_wrote(tmp_path: Path) -> None:
    made = train(
        recipe(start=start(lr=1.0), reducer="sta:r=4"), tmp_path, threads=1, progress=False, say=lambda _: None
    )
    assert weights_digest(made.model.host) != weights_digest(tokred.create_backbone("videomae_vit_nano"))  # type: ignore[arg-type]
    again = build_model(recipe(start=start(lr=1.0, weights=str(made.weights)), reducer=None))
    assert weights_digest(again) == weights_digest(made.model.host)  # type: ignore[arg-type]
    taught = recipe(start=start(weights=str(made.weights)))
    teacher = teacher_for(taught, build_model(taught), torch.device("cpu"), torch.float32)
    assert teacher is not None
    assert weights_digest(teacher.host) == weights_digest(again)


def test_gradients_skip_what_is_frozen_or_unused() -> None:
    a, b, c = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    b.requires_grad_(False)
    first, second, third = gradients_of((a * b).sum(), [a, b, c])
    assert first is not None
    assert first.tolist() == [1, 1]
    assert second is None
    assert third is None


def test_the_teacher_is_the_unreduced_backbone_in_the_precision_of_the_run() -> None:
    spec = recipe()
    trainee = Trainee(build_model(spec), None)
    with workers(1) as crew:
        engine = StepEngine(spec, trainee, crew, torch.device("cpu"))
    assert engine.teacher is not None
    assert not any(p.requires_grad for p in engine.teacher.parameters())
    assert not engine.teacher.training
    assert trainee.model.training
    clips = torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    nano = tokred.create_backbone("videomae_vit_nano")
    with torch.no_grad():
        assert torch.equal(engine.teacher(clips), nano(clips))
    device = torch.device("cpu")
    half = teacher_for(spec, trainee.model, device, torch.bfloat16)
    assert half is not None
    assert next(half.parameters()).dtype == torch.bfloat16
    assert teacher_for(recipe(start=start(teacher=False)), trainee.model, device, torch.float32) is None
    assert teacher_for(spec, build_model(recipe(reducer="sta:r=4", start=start(lr=1))), device, torch.float32) is None


def begun(changes: dict[str, Any]) -> None:
    spec = recipe(**changes)
    teacher_for(spec, build_model(spec), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reducer": None}, "start.lr = 0 keeps the backbone"),
        ({"reducer": "sta:r=4"}, "start.lr = 0 keeps the backbone"),
        ({"start": start(weights="results/none.safetensors")}, r"'results/none.safetensors' is no file"),
        ({"start": start(weights=__file__)}, "start.weights: "),
        ({"start": start(speed=2)}, "unknown key"),
        ({"start": start(lr=-1)}, "start.lr"),
        ({"start": {"backbone": "nano"}}, "no backbone is named 'nano'"),
        ({"start": {"backbone": "videomae_vit_small"}}, "has no weights inside the package"),
        ({"model": {"depth": 3}}, "does not have the sizes of this model"),
        ({"reducer": "dynamicvit:keep=0.8+dynamicvit:keep=0.5,at=[8]"}, "are learned: train one at a time"),
    ],
)
def test_recipes_that_cannot_be_run_say_why(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        begun(changes)
