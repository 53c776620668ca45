"""Hosts of every family that reducers can be attached to, besides those of ``default_backbones``."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from torch import Tensor, nn

from tokred.testing import Backbone
from tokred.testing.shapes import inputs, randomised


def vivit() -> tuple[nn.Module, Tensor]:
    """Factorised: the blocks run once for each of 3 tubelets of 5 x 5 patches behind a class token."""
    from tokred.backbones.vivit import ViViT

    model = ViViT(img_size=40, patch_size=8, frames=6, dim=24, depth=4, temporal_depth=1, num_heads=3, num_classes=5)
    return randomised(model), inputs(0, 3, 3, 6, 40, 40)


def average() -> tuple[nn.Module, Tensor]:
    """A timm ViT of 4 x 5 patches that averages them, with registers and without a class token."""
    timm: Any = importlib.import_module("timm.models.vision_transformer")
    model = timm.VisionTransformer(
        img_size=(16, 20),
        patch_size=4,
        embed_dim=24,
        depth=4,
        num_heads=3,
        num_classes=5,
        class_token=False,
        global_pool="avg",
        reg_tokens=2,
    )
    return randomised(model), inputs(0, 3, 3, 16, 20)


def huggingface() -> tuple[nn.Module, Tensor]:
    """VideoMAE of transformers: 2 x 5 x 5 patches."""
    transformers: Any = importlib.import_module("transformers")
    config = transformers.VideoMAEConfig(
        image_size=40,
        patch_size=8,
        num_frames=4,
        tubelet_size=2,
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=3,
        intermediate_size=48,
        num_labels=5,
    )
    config._attn_implementation = "sdpa"
    return randomised(transformers.VideoMAEForVideoClassification(config)), inputs(0, 3, 4, 3, 40, 40)


def torchvision() -> tuple[nn.Module, Tensor]:
    """Video Swin of torchvision: 3 x 7 x 10 patches in three stages."""
    swin: Any = importlib.import_module("torchvision.models.video.swin_transformer")
    model = swin.SwinTransformer3d([2, 4, 4], 16, [1, 2, 1], [2, 2, 4], [2, 3, 3], num_classes=5)
    return randomised(model), inputs(0, 3, 3, 6, 28, 40)


NEEDS = {"average": "timm", "huggingface": "transformers", "torchvision": "torchvision"}

OTHERS = tuple(
    Backbone(build.__name__, build)
    for build in (vivit, average, huggingface, torchvision)
    if importlib.util.find_spec(NEEDS.get(build.__name__, "torch")) is not None
)
