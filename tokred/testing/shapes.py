"""Small models by their sizes: each makes a host with random weights and a batch of random inputs, always the same."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

PATCH = 4
CLASSES = 7


@dataclass(frozen=True)
class Backbone:
    """A model to check reducers on.

    Args:
        name: shown in every message.
        build: makes the model and a batch of at least two different inputs for it, the same ones on every call.
    """

    name: str
    build: Callable[[], tuple[nn.Module, Tensor]]


@dataclass(frozen=True)
class VideoShape:
    """A video ViT without class token.

    Args:
        grid: patches (T, H, W); dim: width; heads: a divisor of it; depth: blocks; layer_scale: whether branches are
            scaled; batch: clips; seed: another seed, other weights and clips.
    """

    grid: tuple[int, int, int]
    dim: int
    heads: int
    depth: int
    layer_scale: bool = False
    batch: int = 3
    seed: int = 0

    @property
    def backbone(self) -> Backbone:
        """As a backbone that is named after its sizes."""
        return Backbone(repr(self), self.build)

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in eval mode and clips (B, 3, 2 T, 4 H, 4 W)."""
        from tokred.backbones.videomae import VideoViT

        t, h, w = self.grid
        model = VideoViT(
            img_size=(PATCH * h, PATCH * w),
            patch_size=PATCH,
            tubelet_size=2,
            frames=2 * t,
            dim=self.dim,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=2,
            num_classes=CLASSES,
            positions="learned",
            init_values=0.5 if self.layer_scale else 0.0,
        )
        return randomised(model, self.seed), inputs(self.seed, self.batch, 3, 2 * t, PATCH * h, PATCH * w)


@dataclass(frozen=True)
class ImageShape:
    """A timm ViT.

    Args:
        grid: patches (H, W); dim: width; heads: a divisor of it; depth: blocks.
        class_token: whether there is one (else the patches are averaged); registers: register tokens behind it.
        layer_scale: whether branches are scaled; qk_norm: whether queries and keys are normalised.
        batch: images; seed: another seed, other weights and images.
    """

    grid: tuple[int, int]
    dim: int
    heads: int
    depth: int
    class_token: bool = True
    registers: int = 0
    layer_scale: bool = False
    qk_norm: bool = False
    batch: int = 3
    seed: int = 0

    @property
    def backbone(self) -> Backbone:
        """As a backbone that is named after its sizes."""
        return Backbone(repr(self), self.build)

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in eval mode and images (B, 3, 4 H, 4 W)."""
        timm: Any = importlib.import_module("timm.models.vision_transformer")
        h, w = self.grid
        model = timm.VisionTransformer(
            img_size=(PATCH * h, PATCH * w),
            patch_size=PATCH,
            embed_dim=self.dim,
            depth=self.depth,
            num_heads=self.heads,
            mlp_ratio=2,
            num_classes=CLASSES,
            class_token=self.class_token,
            global_pool="token" if self.class_token else "avg",
            reg_tokens=self.registers,
            init_values=0.5 if self.layer_scale else None,
            qk_norm=self.qk_norm,
        )
        return randomised(model, self.seed), inputs(self.seed, self.batch, 3, PATCH * h, PATCH * w)


@dataclass(frozen=True)
class WindowShape:
    """A VideoSwin of three stages of 1, 2 and 1 blocks.

    Args:
        grid: patches (T, H, W) of the first stage; dim: its width; window: (t, h, w) of the windows.
        batch: clips; seed: another seed, other weights and clips.
    """

    grid: tuple[int, int, int]
    dim: int
    window: tuple[int, int, int]
    batch: int = 3
    seed: int = 0

    @property
    def backbone(self) -> Backbone:
        """As a backbone that is named after its sizes."""
        return Backbone(repr(self), self.build)

    def build(self) -> tuple[nn.Module, Tensor]:
        """The model in eval mode and clips (B, 3, 2 T, 2 H, 2 W)."""
        from tokred.backbones.videoswin import VideoSwin

        t, h, w = self.grid
        model = VideoSwin(
            img_size=(2 * h, 2 * w),
            patch_size=(2, 2, 2),
            frames=2 * t,
            dim=self.dim,
            depths=(1, 2, 1),
            num_heads=(2, 2, 4),
            window=self.window,
            mlp_ratio=2,
            num_classes=CLASSES,
        )
        return randomised(model, self.seed), inputs(self.seed, self.batch, 3, 2 * t, 2 * h, 2 * w)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with weights large enough that attention and scores differ clearly between tokens."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scales = parameter.ndim == 1 and not name.endswith("bias")  # of norms and layer scale
            noise = torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim > 1 else 0.1)
            parameter.copy_(parameter + noise if scales else noise)
    return model.eval()


def inputs(seed: int, *shape: int) -> Tensor:
    """A batch of random inputs of a shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 1))
