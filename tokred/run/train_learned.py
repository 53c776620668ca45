"""Training of learned reducers on a trained backbone: start, teacher, extra losses, learning rates, export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.attach import Attached, Run, attach
from tokred.backbones.convert.digest import weights_digest
from tokred.data.source import Source
from tokred.learned import LearnedReducer, learned_parts
from tokred.learned_files import save_learned
from tokred.registry import build
from tokred.run.train_export import export, header
from tokred.run.train_spec import SpecError, TrainSpec
from tokred.run.train_start import StartSpec

HOST = "model.host."
"""Names of the backbone's parameters in a trainee with a reducer begin with this."""

MODEL = "model."
"""The same in a trainee without one."""


def load_start(model: nn.Module, spec: TrainSpec) -> None:
    """The weights of the backbone that the recipe starts from, into its model.

    Raises:
        SpecError: there are none, or the model has other sizes.
    """
    if spec.start is None:
        return
    trained = start_backbone(spec.start)
    try:
        model.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:300]
        name = spec.start.backbone
        raise SpecError(f"start.backbone = {name!r} does not have the sizes of this model: {problem}") from error


def start_backbone(start: StartSpec) -> nn.Module:
    """The trained backbone that a recipe starts from.

    Raises:
        SpecError: there is none of this name, or there are no weights for it.
    """
    from tokred.backbones.spec import backbone_info
    from tokred.backbones.zoo import create_backbone

    if start.weights is not None and not Path(start.weights).is_file():
        raise SpecError(f"start.weights = {start.weights!r} is no file: train what it comes from first")
    try:
        trained = create_backbone(start.backbone, start.weights)
    except ValueError as error:
        raise SpecError(f"start.{'backbone' if start.weights is None else 'weights'}: {error}") from error
    info = backbone_info(trained)
    if start.weights is None and (info is None or info.weights != "embedded"):
        raise SpecError(f"start.backbone = {start.backbone!r} has no weights inside the package")
    return trained


def check_trains(model: nn.Module, spec: TrainSpec) -> None:
    """Refuse a recipe whose backbone is kept as it is and that has nothing else to train.

    Raises:
        SpecError: with what to change.
    """
    if spec.start is not None and spec.start.lr == 0 and learned_part(model) is None:
        raise SpecError("start.lr = 0 keeps the backbone, and there is no learned reducer: nothing would be trained")


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
    host = start_backbone(spec.start).to(device, dtype).requires_grad_(False)
    return attach(host, build("none"))


def backbone_share(spec: TrainSpec, step: int) -> float:
    """Learning rate of the backbone at a step relative to the stage's."""
    if spec.start is None:
        return 1.0
    return 0.0 if step < spec.start.frozen else spec.start.lr


def backbone_names(trainee: nn.Module) -> str:
    """What the names of the backbone's parameters begin with in a trainee."""
    return HOST if isinstance(trainee.get_submodule("model"), Attached) else MODEL


def parameter_groups(trainee: nn.Module, spec: TrainSpec) -> list[dict[str, Any]]:
    """AdamW's groups: decay on matrices only, and those of a backbone to start from apart."""
    groups: list[dict[str, Any]] = []
    apart = [False] if spec.start is None else [False, True]
    named, prefix = list(trainee.named_parameters()), backbone_names(trainee)
    for backbone in apart:
        own = [p for name, p in named if (name.startswith(prefix) and len(apart) > 1) == backbone]
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
        wanted, prefix = backbone_share(spec, step) > 0, backbone_names(trainee)
        for name, parameter in trainee.named_parameters():
            if name.startswith(prefix):
                parameter.requires_grad_(wanted)


def learned_forward(
    model: nn.Module, clips: Tensor, teacher: Attached | None, tasks: Sequence[slice], trace: bool = False
) -> tuple[Tensor, dict[str, Tensor], Run | None]:
    """Logits (B, classes), float32, of a model in training, the losses that a learned method adds, and the forward.

    Args:
        clips: as the model takes them; tasks: the parts of the logits that are a classification each.
        trace: whether the forward says which token carries each patch.
    Returns:
        the forward is None for a model without a reducer, and where nothing asks for its inside.
    """
    if not isinstance(model, Attached):
        return model(clips).float(), {}, None
    part = learned_part(model)
    if part is None and not trace:
        return model(clips).float(), {}, None
    run = model.run(clips, record=part is not None, trace=trace)
    if part is None:
        return run.logits.float(), {}, run
    answers = None
    if teacher is not None:
        with torch.no_grad():
            answers = teacher.run(clips)
    return run.logits.float(), part.training_losses(run, answers, tasks), run


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
