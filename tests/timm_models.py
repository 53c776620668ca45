"""Small timm models of every kind, off their initial values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

timm = pytest.importorskip("timm")
from timm.models import vision_transformer as timm_vit  # noqa: E402 (only where timm is)

SIZE: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 3,
    "num_heads": 3,
    "num_classes": 5,
}

# Named architectures, built small and without weights; those that an older timm does not have are left out there.
NAMED = [
    "vit_base_patch16_224",
    "vit_base_patch16_224_miil",
    "vit_medium_patch16_gap_240",
    "vit_little_patch16_reg4_gap_256",
    "vit_betwixt_patch16_reg4_gap_256",
    "vit_so150m_patch16_reg4_map_256",
    "vit_base_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_giant_patch14_dinov2",
    "vit_base_patch16_clip_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_siglip_gap_224",
    "vit_intern300m_patch14_448",
    "aimv2_large_patch14_224",
    "deit_small_patch16_224",
    "deit_base_distilled_patch16_224",
    "deit3_base_patch16_224",
    "test_vit",
    "test_vit2",
    "test_vit3",
    "test_vit4",
]

# Arguments of VisionTransformer that no name above has, alone or in this combination.
BUILT: dict[str, dict[str, Any]] = {
    "qk-norm": {"qk_norm": True},
    "qk-norm, layer scale, registers": {"qk_norm": True, "init_values": 0.3, "reg_tokens": 2},
    "rms norms": {"norm_layer": timm.layers.RmsNorm, "qk_norm": True},
    "average pool": {"global_pool": "avg"},
    "average pool, no class token": {"global_pool": "avg", "class_token": False},
    "average pool, fc_norm off": {"global_pool": "avg", "class_token": False, "fc_norm": False},
    "registers, no class token": {"global_pool": "avg", "class_token": False, "reg_tokens": 3},
    "positions without class": {"no_embed_class": True, "reg_tokens": 1},
    "pre-norm": {"pre_norm": True},
    "no bias": {"qkv_bias": False},
    "two layers of other width": {"mlp_ratio": 2.5},
    "dynamic size": {"dynamic_img_size": True},
    "no classifier": {"num_classes": 0},
    "scale norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "average and maximum": {"global_pool": "avgmax"},
    "maximum": {"global_pool": "max"},
    "pool with prefix": {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
    "no positions": {"pos_embed": "none"},
    "no final norm": {"final_norm": False},
}


def shaken(model: nn.Module, seed: int = 1) -> nn.Module:
    """Every weight off its initial value, so that no part of the model is idle."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def build(label: str) -> nn.Module:
    torch.manual_seed(0)
    if label in BUILT:
        try:
            model = timm_vit.VisionTransformer(**{**SIZE, **BUILT[label]})
        except (TypeError, AssertionError) as error:
            pytest.skip(f"timm {timm.__version__} cannot build it: {error}")
        if model.pos_embed is None and model._pos_embed(torch.zeros(1, 16, 24)).shape[1] != 17:
            pytest.skip(f"timm {timm.__version__} forgets the class token without positions, and is refused")
        return shaken(model)
    if not timm.is_model(label):
        pytest.skip(f"timm {timm.__version__} has no {label}")
    return shaken(timm.create_model(label, **SIZE))


def set_fused(model: Any, fused: bool) -> None:
    for block in model.blocks:
        block.attn.fused_attn = fused
