"""The models that a recipe can train, with their sizes as settings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from torch import nn

from tokred.run.train_image_spec import ImageViTSpec
from tokred.run.train_part import Part, PlainViT


class PlainVideoViT(PlainViT):
    """A ViT whose tokens are tubelets."""

    tubelet_size: int = Field(2, ge=1)

    @property
    def tubelet(self) -> int:
        """Frames per token."""
        return self.tubelet_size


class VideoViTSpec(PlainVideoViT):
    """A video ViT in VideoMAE's layout (``tokred.backbones.videomae.VideoViT``)."""

    kind: Literal["videomae_vit"] = "videomae_vit"
    positions: Literal["flat", "grid", "learned"] = "grid"

    def build(self, size: int, frames: int, classes: int) -> nn.Module:
        """The model, freshly initialised."""
        from tokred.backbones.videomae import VideoViT

        return VideoViT(img_size=size, frames=frames, num_classes=classes, **self.sizes)


class VideoSwinSpec(Part):
    """A Video Swin Transformer (``tokred.backbones.videoswin.VideoSwin``); square patches."""

    kind: Literal["videoswin"]
    patch_size: int = Field(4, ge=1)
    tubelet_size: int = Field(2, ge=1)
    dim: int = Field(32, ge=1)
    depths: list[Annotated[int, Field(ge=1)]] = Field([2, 2, 2, 1], min_length=1)
    num_heads: list[Annotated[int, Field(ge=1)]] = Field([1, 2, 4, 8], min_length=1)
    window: tuple[int, int, int] = (8, 4, 4)
    mlp_ratio: float = Field(4.0, gt=0)
    drop_path: float = Field(0.0, ge=0, lt=1)
    auxiliary_stage: int = Field(0, ge=0, description="stage whose last block's tokens the auxiliary heads read")

    @model_validator(mode="after")
    def _fits(self) -> VideoSwinSpec:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths has {len(self.depths)} stages, num_heads has {len(self.num_heads)}")
        if min(self.window) < 1:
            raise ValueError(f"window = {self.window} needs lengths of at least 1")
        if self.auxiliary_stage >= len(self.depths):
            raise ValueError(f"auxiliary_stage = {self.auxiliary_stage}, but there are {len(self.depths)} stages")
        for i, heads in enumerate(self.num_heads):
            if self.dim * 2**i % heads:
                raise ValueError(f"num_heads = {heads} does not divide the width {self.dim * 2**i} of stage {i}")
        return self

    @property
    def tubelet(self) -> int:
        """Frames per token."""
        return self.tubelet_size

    @property
    def stride(self) -> int:
        """Pixels per side of a token of the last block."""
        return self.patch_size << (len(self.depths) - 1)

    @property
    def widths(self) -> tuple[int, int]:
        """Widths of the tokens that auxiliary heads read and of the pooled features."""
        return self.dim << self.auxiliary_stage, self.dim << (len(self.depths) - 1)

    @property
    def auxiliary_stride(self) -> int:
        """Pixels per side of a token that auxiliary heads read."""
        return self.patch_size << self.auxiliary_stage

    def build(self, size: int, frames: int, classes: int) -> nn.Module:
        """The model, freshly initialised."""
        from tokred.backbones.videoswin import VideoSwin

        sizes = self.model_dump(exclude={"kind", "patch_size", "tubelet_size", "auxiliary_stage"})
        patch = (self.tubelet_size, self.patch_size, self.patch_size)
        return VideoSwin(img_size=size, frames=frames, num_classes=classes, patch_size=patch, **sizes)


class ViViTSpec(PlainVideoViT):
    """A factorised ViViT (``tokred.backbones.vivit.ViViT``): a spatial model per tubelet, a temporal one on top."""

    kind: Literal["vivit"]
    depth: int = Field(6, ge=1)
    temporal_depth: int = Field(2, ge=1)

    def build(self, size: int, frames: int, classes: int) -> nn.Module:
        """The model, freshly initialised."""
        from tokred.backbones.vivit import ViViT

        return ViViT(img_size=size, frames=frames, num_classes=classes, **self.sizes)


KINDS: dict[str, type[VideoViTSpec | VideoSwinSpec | ViViTSpec | ImageViTSpec]] = {
    "videomae_vit": VideoViTSpec,
    "videoswin": VideoSwinSpec,
    "vivit": ViViTSpec,
    "vit": ImageViTSpec,
}


def kind_of(given: Any) -> str:
    """The kind that a model's settings name; without a name the video ViT."""
    return str(given.get("kind", "videomae_vit") if isinstance(given, dict) else getattr(given, "kind", "videomae_vit"))


ModelSpec = Annotated[
    Annotated[VideoViTSpec, Tag("videomae_vit")]
    | Annotated[VideoSwinSpec, Tag("videoswin")]
    | Annotated[ViViTSpec, Tag("vivit")]
    | Annotated[ImageViTSpec, Tag("vit")],
    Discriminator(
        kind_of, custom_error_type="model_kind", custom_error_message=f"kind must be one of {', '.join(KINDS)}"
    ),
]
