"""The small random backbones that the contract runs on: a video model, an image model with prefix tokens, windows."""

from __future__ import annotations

import importlib.util

from tokred.testing.shapes import Backbone, ImageShape, VideoShape, WindowShape

__all__ = ["Backbone", "default_backbones"]

# 4 x 4 x 6 patches, 3 blocks.
VIDEO = Backbone("video", VideoShape((4, 4, 6), dim=24, heads=3, depth=3).build)

# 1 x 8 x 8 patches behind a class and a register token, 4 blocks, with layer scale and normalised queries and keys.
IMAGE = Backbone(
    "image",
    ImageShape((8, 8), dim=24, heads=3, depth=4, registers=1, layer_scale=True, qk_norm=True).build,
)

# 3 x 7 x 10 patches, then 3 x 4 x 5 and 3 x 2 x 3: windows that are padded, shifted and clipped; 4 blocks.
WINDOWS = Backbone("windows", WindowShape((3, 7, 10), dim=16, window=(2, 3, 3)).build)


def default_backbones() -> tuple[Backbone, ...]:
    """A video ViT without class token, a timm ViT with class and register token if timm is installed, a VideoSwin."""
    image = (IMAGE,) if importlib.util.find_spec("timm") is not None else ()
    return (VIDEO, *image, WINDOWS)
