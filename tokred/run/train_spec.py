"""The recipe of a training run: read from YAML, checked before anything is computed, every error at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from tokred.data.synthetic.actions import NOISE, SLOWEST
from tokred.run.spec_file import Location, explain, read_yaml
from tokred.run.spec_file import SpecError as FileError
from tokred.run.train_image_spec import Cifar10Spec, ImageViTSpec, image_problems
from tokred.run.train_models import ModelSpec, VideoSwinSpec, VideoViTSpec, ViViTSpec
from tokred.run.train_part import Part
from tokred.run.train_start import StartSpec


class SpecError(ValueError):
    """A recipe that cannot be run; the message lists everything that is wrong, one line each."""


class SyntheticSpec(Part):
    """The generated action data set."""

    kind: Literal["synthetic"] = "synthetic"
    seed: int = Field(0, ge=0)
    size: int = Field(64, ge=16)
    frames: int = Field(16, ge=4)


DATA: dict[str, type[SyntheticSpec | Cifar10Spec]] = {"synthetic": SyntheticSpec, "cifar10": Cifar10Spec}


def data_kind(given: Any) -> str:
    """The kind that the data's settings name; without a name the generated clips."""
    return str(given.get("kind", "synthetic") if isinstance(given, dict) else getattr(given, "kind", "synthetic"))


DataSpec = Annotated[
    Annotated[SyntheticSpec, Tag("synthetic")] | Annotated[Cifar10Spec, Tag("cifar10")],
    Discriminator(
        data_kind, custom_error_type="data_kind", custom_error_message=f"kind must be one of {', '.join(DATA)}"
    ),
]


class OptimizerSpec(Part):
    """AdamW; weight decay acts on matrices only."""

    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    warmup: int = Field(100, ge=0, description="steps of linear warm-up at the start of the run")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, 0 = off")


class StageSpec(Part):
    """One leg of the curriculum.

    The learning rate goes from ``lr[0]`` to ``lr[1]`` along half a cosine. ``tokens`` is the share of patches that the
    model sees (those of the object, the rest at random: a cheap start; all for a model with windows), ``hold`` the
    share of micro-batches whose poses are held for a tubelet, ``aux`` the weight of the auxiliary losses on the
    object's place and displacement, and ``shape`` that of its class at its own tokens. ``noise`` and ``slowest`` are
    those of ``SyntheticActions``; by default as hard as the held-out clips. ``frames`` makes shorter clips, which show
    whole movements in fewer poses: another cheap start.
    """

    name: str
    steps: int = Field(ge=1)
    lr: tuple[float, float]
    tokens: float = Field(1.0, gt=0, le=1)
    hold: float = Field(1.0, ge=0, le=1)
    aux: float = Field(0.0, ge=0)
    shape: float = Field(0.0, ge=0)
    frames: int | None = Field(None, ge=4, description="frames per clip, by default data.frames")
    noise: float = Field(NOISE, ge=0, le=1)
    slowest: float = Field(SLOWEST, gt=0, le=1)


class EvaluationSpec(Part):
    """Held-out clips of the final evaluation, and of the short one after each stage."""

    clips: int = Field(2000, ge=1)
    stage_clips: int = Field(400, ge=0)


class TrainSpec(Part):
    """Everything that decides the weights of a training run."""

    name: str
    seed: int = Field(0, ge=0)
    model: ModelSpec = VideoViTSpec()
    data: DataSpec = SyntheticSpec()
    reducer: str | None = Field(None, description="train with this reducer attached, e.g. 'sta:r=12'")
    start: StartSpec | None = Field(None, description="a trained backbone that training starts from")
    batch_size: int = Field(32, ge=1)
    micro_batch: int = Field(8, ge=1, description="clips that one worker computes at a time; divides batch_size")
    precision: Literal["bf16", "fp32"] = "bf16"
    attention: Literal["explicit", "fused"] = Field(
        "explicit", description="attention kernel while training; blocks that a reducer takes apart stay fused"
    )
    optimizer: OptimizerSpec = OptimizerSpec()
    stages: list[StageSpec] = Field(min_length=1)
    evaluation: EvaluationSpec = EvaluationSpec()

    @model_validator(mode="after")
    def _consistent(self) -> TrainSpec:
        wrong = []
        if self.batch_size % self.micro_batch:
            wrong.append(f"micro_batch = {self.micro_batch} does not divide batch_size = {self.batch_size}")
        if self.data.size % self.model.stride:
            what = "model.patch_size" if not isinstance(self.model, VideoSwinSpec) else "the last stage's patch"
            wrong.append(f"{what} = {self.model.stride} does not divide data.size = {self.data.size}")
        still = isinstance(self.model, ImageViTSpec) or isinstance(self.data, Cifar10Spec)
        windows = isinstance(self.model, VideoSwinSpec)
        if windows and any(stage.tokens < 1 for stage in self.stages):
            wrong.append("stages: tokens = 1 is needed, because windows need every patch")
        if still:
            wrong += image_problems(self)
        elif self.data.frames % self.model.tubelet or self.data.frames % 2:
            wrong.append(f"data.frames = {self.data.frames} must be even and a multiple of model.tubelet_size")
        for stage in self.stages:
            if stage.frames is not None and (stage.frames % self.model.tubelet or stage.frames % 2):
                wrong.append(f"stage {stage.name}: frames = {stage.frames} must be even and a multiple of the tubelet")
            if isinstance(self.model, ViViTSpec) and stage.frames is not None:
                wrong.append(f"stage {stage.name}: frames is not for a vivit, whose number of steps is fixed")
        if self.reducer is not None:
            if any(stage.tokens < 1 for stage in self.stages):
                wrong.append("reducer: stages of a reduced model need tokens = 1, for reducers need whole clips")
            shown = isinstance(self.model, (VideoViTSpec, ImageViTSpec))
            if not shown and any(stage.aux > 0 or stage.shape > 0 for stage in self.stages):
                wrong.append(
                    f"reducer: aux = 0 and shape = 0 are needed with {self.model.kind}, for those losses read tokens "
                    "that a reduced model of this kind does not show"
                )
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.stages)


def stage_at(spec: TrainSpec, step: int) -> tuple[StageSpec, float]:
    """The stage of a step and its learning rate (half a cosine from ``lr[0]`` to ``lr[1]``, after the warm-up)."""
    begin = 0
    for stage in spec.stages:
        if step < begin + stage.steps:
            share = (step - begin) / stage.steps
            rate = stage.lr[1] + (stage.lr[0] - stage.lr[1]) * (1 + math.cos(math.pi * share)) / 2
            return stage, rate * min(1.0, (step + 1) / max(1, spec.optimizer.warmup))
        begin += stage.steps
    raise ValueError(f"step = {step} is beyond the recipe's {spec.steps}")


def load_spec(path: str | Path) -> TrainSpec:
    """Reads a recipe from a YAML file.

    Raises:
        SpecError: the file cannot be read, is no YAML mapping, or holds wrong values; every problem is listed.
    """
    try:
        content = read_yaml(path)
    except FileError as error:
        raise SpecError(str(error)) from error
    return parse_spec(content, str(path))


def parse_spec(content: Any, origin: str = "recipe") -> TrainSpec:
    """A checked recipe from plain values.

    Args:
        content: nested mappings and lists, as ``yaml.safe_load`` gives them.
        origin: what error messages call it.
    Raises:
        SpecError: anything wrong; every problem is listed.
    """
    if not isinstance(content, dict):
        raise SpecError(f"{origin}: must be a mapping of settings, is {type(content).__name__}")
    try:
        return TrainSpec.model_validate(content)
    except ValidationError as error:
        lines = [explain(problem, TrainSpec, whole="recipe", where=_dotted)[1] for problem in error.errors()]
        raise SpecError("\n".join([f"{origin}: {len(lines)} problem(s)", *(f"  {line}" for line in lines)])) from error


def _dotted(location: Location) -> str:
    """``stages.0.steps``."""
    return ".".join(map(str, location))
