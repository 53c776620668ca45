"""The small random backbones that the contract runs on: a video model, an image model with prefix tokens, windows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

BATCH = 3


@dataclass(frozen=True)
class Backbone:
    """A model to check reducers on.

    Args:
        name: shown in every message.
        build: makes the model and a batch of at least two different inputs for it, the same ones on every call.
    """

    name: str
    build: Callable[[], tuple[nn.Module, Tensor]]


def default_backbones() -> tuple[Backbone, ...]:
    """A video ViT without class token, a timm ViT with class and register token if timm is installed, a VideoSwin."""
    image = (Backbone("image", _image),) if importlib.util.find_spec("timm") is not None else ()
    return (Backbone("video", _video), *image, Backbone("windows", _windows))


def _video() -> tuple[nn.Module, Tensor]:
    """4 x 4 x 6 patches, 3 blocks."""
    from tokred.backbones.videomae import VideoViT

    model = VideoViT(
        img_size=(16, 24),
        patch_size=4,
        tubelet_size=2,
        frames=8,
        dim=24,
        depth=3,
        num_heads=3,
        mlp_ratio=2,
        num_classes=7,
        positions="learned",
    )
    return _randomised(model), _inputs(3, 8, 16, 24)


def _image() -> tuple[nn.Module, Tensor]:
    """1 x 8 x 8 patches behind a class and a register token, 4 blocks, with layer scale and normalised queries."""
    timm: Any = importlib.import_module("timm.models.vision_transformer")
    model = timm.VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=24,
        depth=4,
        num_heads=3,
        mlp_ratio=2,
        num_classes=7,
        reg_tokens=1,
        init_values=0.5,
        qk_norm=True,
    )
    return _randomised(model), _inputs(3, 32, 32)


def _windows() -> tuple[nn.Module, Tensor]:
    """3 x 7 x 10 patches, then 3 x 4 x 5 and 3 x 2 x 3: windows that are padded, shifted and clipped; 4 blocks."""
    from tokred.backbones.videoswin import VideoSwin

    model = VideoSwin(
        img_size=(14, 20),
        patch_size=(2, 2, 2),
        frames=6,
        dim=16,
        depths=(1, 2, 1),
        num_heads=(2, 2, 4),
        window=(2, 3, 3),
        mlp_ratio=2,
        num_classes=7,
    )
    return _randomised(model), _inputs(3, 6, 14, 20)


def _randomised(model: nn.Module) -> nn.Module:
    """Weights large enough that attention and scores differ clearly between tokens."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scales = parameter.ndim == 1 and not name.endswith("bias")  # of norms and layer scale
            noise = torch.randn(parameter.shape, generator=generator) * (0.3 if parameter.ndim > 1 else 0.1)
            parameter.copy_(parameter + noise if scales else noise)
    return model.eval()


def _inputs(*shape: int) -> Tensor:
    return torch.randn(BATCH, *shape, generator=torch.Generator().manual_seed(1))
