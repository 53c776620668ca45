"""Training of learned reducers on a trained backbone: start, teacher, extra losses, learning rates, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.attach import Attached, attach
from tokred.backbones.convert.digest import weights_digest
from tokred.data.source import Source
from tokred.learned import LearnedReducer, learned_parts
from tokred.learned_files import save_learned
from tokred.registry import build
from tokred.run.train_export import export, header
from tokred.run.train_spec import SpecError, TrainSpec

HOST = "model.host."
"""Names of the backbone's parameters in a trainee with a reducer begin with this."""


def load_start(model: nn.Module, spec: TrainSpec) -> None:
    """The weights of the backbone that the recipe starts from, into its model.

    Raises:
        SpecError: there are none, or the model has other sizes.
    """
    if spec.start is None:
        return
    from tokred.backbones.spec import backbone_info
    from tokred.backbones.zoo import create_backbone

    name = spec.start.backbone
    try:
        trained = create_backbone(name)
    except ValueError as error:
        raise SpecError(f"start.backbone: {error}") from error
    info = backbone_info(trained)
    if info is None or info.weights != "embedded":
        raise SpecError(f"start.backbone = {name!r} has no weights inside the package")
    try:
        model.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        raise SpecError(f"start.backbone = {name!r} does not have the sizes of this model: {problem}") from error


def learned_part(model: nn.Module) -> LearnedReducer | None:
    """The learned method that a trainee's model carries, None where there is none.

    Raises:
        SpecError: there are several, and a file holds the parameters of one.
    """
    parts = learned_parts(model.reducer) if isinstance(model, Attached) else []
    if len(parts) > 1:
        raise SpecError(f"reducer: {' and '.join(part.spec for part in parts)} are learned: train one at a time")
    return parts[0] if parts else None


def teacher_for(spec: TrainSpec, trainee: nn.Module, device: torch.device, dtype: torch.dtype) -> Attached | None:
    """The unreduced frozen model that a learned method is taught by, None where the recipe has none."""
    if spec.start is None or not spec.start.teacher or learned_part(trainee) is None:
        return None
    from tokred.backbones.zoo import create_backbone

    host = create_backbone(spec.start.backbone).to(device, dtype).requires_grad_(False)
    return attach(host, build("none"))


def backbone_share(spec: TrainSpec, step: int) -> float:
    """Learning rate of the backbone at a step relative to the stage's."""
    if spec.start is None:
        return 1.0
    return 0.0 if step < spec.start.frozen else spec.start.lr


def parameter_groups(trainee: nn.Module, spec: TrainSpec) -> list[dict[str, Any]]:
    """AdamW's groups: decay on matrices only, and those of a backbone to start from apart."""
    groups: list[dict[str, Any]] = []
    apart = [False] if spec.start is None else [False, True]
    for backbone in apart:
        own = [p for name, p in trainee.named_parameters() if (name.startswith(HOST) and len(apart) > 1) == backbone]
        groups.append({"params": [p for p in own if p.ndim >= 2], "weight_decay": spec.optimizer.weight_decay})
        groups.append({"params": [p for p in own if p.ndim < 2], "weight_decay": 0.0})
    return groups


def set_rates(optimizer: torch.optim.Optimizer, rate: float, spec: TrainSpec, step: int) -> None:
    """The learning rates of a step; the groups behind the first two are the backbone's."""
    share = backbone_share(spec, step)
    for number, group in enumerate(optimizer.param_groups):
        group["lr"] = rate if number < 2 else rate * share


def begin_step(trainee: nn.Module, model: nn.Module, spec: TrainSpec, step: int) -> None:
    """Tell a learned method where training is, and switch the gradients of the backbone on or off: a frozen one costs
    no backward of its weights.

    Args:
        trainee: everything that trains, with the names of a run; model: the model in it.
    """
    part = learned_part(model)
    if part is not None:
        part.progress(step, spec.steps)
    if spec.start is not None:
        wanted = backbone_share(spec, step) > 0
        for name, parameter in trainee.named_parameters():
            if name.startswith(HOST):
                parameter.requires_grad_(wanted)


def learned_forward(
    model: nn.Module, clips: Tensor, teacher: Attached | None, tasks: Sequence[slice]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (B, classes), float32, of a model in training, and the losses that a learned method adds.

    Args:
        clips: as the model takes them; tasks: the parts of the logits that are a classification each.
    """
    part = learned_part(model)
    if part is None or not isinstance(model, Attached):
        return model(clips).float(), {}
    run = model.run(clips, record=True)
    answers = None
    if teacher is not None:
        with torch.no_grad():
            answers = teacher.run(clips)
    return run.logits.float(), part.training_losses(run, answers, tasks)


def gradients_of(loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor | None, ...]:
    """Gradients of all parameters, None for frozen ones and for those that the loss does not depend on."""
    training = [p for p in parameters if p.requires_grad]
    found = iter(torch.autograd.grad(loss, training, allow_unused=True))
    return tuple(next(found) if p.requires_grad else None for p in parameters)


def write_weights(
    model: nn.Module, folder: Path, spec: TrainSpec, steps: int, source: Source, accuracy: dict[str, dict[str, float]]
) -> Path:
    """Write what a run has trained, NAME.safetensors: the backbone, or the parameters of a learned method.

    A backbone that was trained along with a learned method is written beside it, as NAME-backbone.safetensors.

    Args:
        model: the trained model, at stored precision; folder: where the file goes; steps: optimizer steps done.
        source: the held-out clips that it was measured on; accuracy: change -> label set -> top-1 in [0, 1].
    Returns:
        the file.
    """
    path = folder / f"{spec.name}.safetensors"
    part = learned_part(model)
    if part is None or not isinstance(model, Attached):
        export(model, path, spec, source, accuracy)
        return path
    name = "" if spec.start is None else spec.start.backbone
    if spec.start is None or spec.start.lr > 0:
        name = f"{spec.name}-backbone"
        export(model, folder / f"{name}.safetensors", spec, source, accuracy)
    part.mark_trained(steps, f"recipe {spec.name}")
    save_learned(
        part,
        path,
        backbone=name,
        backbone_sha256=weights_digest(model.host),
        recipe=f"recipe {spec.name}",
        metadata=header(spec, source, accuracy),
    )
    return path
