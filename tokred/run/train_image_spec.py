"""The parts of a recipe that are for still pictures: the model, the data, and what goes together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator
from torch import nn

from tokred.run.train_part import Part, PlainViT

if TYPE_CHECKING:
    from tokred.run.train_spec import TrainSpec


class ImageViTSpec(PlainViT):
    """An image ViT with a class token (timm's ``VisionTransformer``)."""

    kind: Literal["vit"]
    patch_size: int = Field(4, ge=1)
    depth: int = Field(8, ge=1)

    @model_validator(mode="after")
    def _has_positions(self) -> ImageViTSpec:
        if self.dim % 4:
            raise ValueError(f"dim = {self.dim} is no multiple of 4, as positions at the start need")
        return self

    @property
    def tubelet(self) -> int:
        """Frames per token."""
        return 1

    def build(self, size: int, frames: int, classes: int) -> nn.Module:
        """The model, freshly initialised."""
        from tokred.backbones.image_vit import build_image_vit
        from tokred.run.train_image_start import mimetic

        model = build_image_vit(img_size=size, num_classes=classes, **self.sizes)
        mimetic(model)
        return model


class Cifar10Spec(Part):
    """CIFAR-10, from a folder that is given apart from the recipe.

    Training pictures are shifted by up to ``shift`` pixels, what is left over being black, and flipped at random. The
    last ``validation`` pictures of a seeded shuffle of the training set are not trained on.
    """

    kind: Literal["cifar10"]
    seed: int = Field(0, ge=0)
    size: int = Field(32, ge=8)
    shift: int = Field(4, ge=0)
    validation: int = Field(5000, ge=1)

    @property
    def frames(self) -> int:
        """Frames per clip."""
        return 1


def image_problems(spec: TrainSpec) -> list[str]:
    """What does not go together in a recipe with an image model or with pictures."""
    wrong = []
    if not (isinstance(spec.data, Cifar10Spec) and isinstance(spec.model, ImageViTSpec)):
        wrong.append("model.kind = vit and data.kind = cifar10 need each other")
    clips_only = {"hold", "aux", "shape", "noise", "slowest", "frames"}
    for stage in spec.stages:
        strange = sorted(clips_only & stage.model_fields_set)
        given = [name for name in strange if getattr(stage, name) != type(stage).model_fields[name].default]
        if given:
            wrong.append(f"stage {stage.name}: {', '.join(given)} have no meaning for pictures")
    return wrong
