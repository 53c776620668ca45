"""What a backbone wants to be fed, and what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from tokred.data.source import LabelSet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYOUTS = ("BCTHW", "BTCHW", "BCHW")


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone by name.

    Args:
        name: what ``create_backbone`` takes.
        frames: frames per clip, 1 for an image model.
        size: (height, width) in pixels.
        mean, std: per channel, on pixels in [0, 1].
        stride: frames from one sampled frame to the next, at the frame rate it was trained for.
        layout: order of the input's axes, one of LAYOUTS.
        builder: arguments of the family's class; empty for the models of other libraries.
        weights: file name of the embedded weights, "" without.
        label_sets: the tasks inside the logits of the embedded weights.
        family: "videomae_vit" (``VideoViT``), "videoswin" (``VideoSwin``) or "vit" (timm's ``VisionTransformer``).
    """

    name: str
    frames: int
    size: tuple[int, int]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    stride: int = 1
    layout: str = "BCTHW"
    builder: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""
    label_sets: tuple[LabelSet, ...] = ()
    family: str = "videomae_vit"

    def arrange(self, clips: Tensor) -> Tensor:
        """Clips (B, 3, T, H, W) in the order of axes that the model takes.

        Raises:
            ValueError: more than one frame for an image model.
        """
        if self.layout == "BTCHW":
            return clips.transpose(1, 2)
        if self.layout == "BCHW":
            if clips.shape[2] != 1:
                raise ValueError(f"{self.name} takes one frame, the clips have {clips.shape[2]}")
            return clips[:, :, 0]
        return clips


@dataclass(frozen=True)
class BackboneInfo:
    """How a model was made.

    Args:
        spec: sizes as built, overrides included.
        checkpoint: the file of its weights, None for random or embedded ones.
        weights: "embedded", "random", or the layout of the checkpoint in words.
        notes: every conversion on the way, shown with results.
    """

    spec: BackboneSpec
    checkpoint: str | None
    weights: str
    notes: tuple[str, ...] = ()


_ATTRIBUTE = "tokred_backbone"


def set_info(model: nn.Module, info: BackboneInfo) -> None:
    """Remember how a model was made; an ordinary attribute, so it is copied and pickled with the model."""
    setattr(model, _ATTRIBUTE, info)


def backbone_info(model: nn.Module) -> BackboneInfo | None:
    """How ``create_backbone`` made this model; None for a model from elsewhere."""
    info = getattr(model, _ATTRIBUTE, None)
    return info if isinstance(info, BackboneInfo) else None


def logits_of(output: Any) -> Tensor:
    """The logits (B, classes) in what a model returned: a tensor, or an object with ``logits``."""
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(f"the model returned {type(output).__name__}, which holds no logits")
    return logits
