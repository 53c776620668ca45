"""What the timm adapter understands of a timm model: everything else is refused with the reason."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

from torch import nn

from tokred.backbones.adapter import Unsupported
from tokred.backbones.guards import kind_of, refuse_hooks, refuse_overrides, refuse_unknown_parts, require_type

_MODEL_CHILDREN = {
    "patch_embed",
    "pos_drop",
    "patch_drop",
    "norm_pre",
    "blocks",
    "norm",
    "attn_pool",
    "fc_norm",
    "head_drop",
    "head",
    "head_dist",
}
_MODEL_TENSORS = {"cls_token", "reg_token", "dist_token", "pos_embed"}
_MODEL_METHODS = ("forward", "forward_features", "forward_head", "pool", "_pos_embed", "__call__")
_BLOCK_CHILDREN = {"norm1", "attn", "ls1", "drop_path1", "norm2", "mlp", "ls2", "drop_path2"}
_ATTN_CHILDREN = {"qkv", "q_norm", "k_norm", "attn_drop", "norm", "gate", "proj", "proj_drop"}
_POOLS = ("token", "avg", "avgmax", "max", "map")
_NORMS = ("LayerNorm", "LayerNormFp32", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32")
_MLPS = ("Mlp", "GluMlp", "SwiGLU")

# Well-known timm families of other kinds, and what in them the adapter would get wrong.
_REASONS = {
    "Eva": "its attention may rotate queries and keys by position (RoPE)",
    "Beit": "its attention adds a bias by relative position",
    "VisionTransformerRelPos": "its attention adds a bias by relative position",
    "SwinTransformer": "its attention runs in windows of the full grid",
    "SwinTransformerV2": "its attention runs in windows of the full grid",
    "NaFlexVit": "it packs images of different sizes, with attention masks",
    "Cait": "its class attention is a second kind of block",
}


def check_timm_vit(model: nn.Module) -> None:
    """Refuse what is not a plain VisionTransformer, part by part.

    Raises:
        Unsupported: naming the part and the reason.
    """
    timm_vit = _module("timm.models.vision_transformer")
    distilled_vit = _module("timm.models.deit").VisionTransformerDistilled
    name = type(model).__name__
    if not isinstance(model, timm_vit.VisionTransformer):
        reason = _REASONS.get(name, "its blocks are not those of timm's VisionTransformer")
        raise Unsupported(f"timm's {name} is not read: {reason}")
    base = distilled_vit if isinstance(model, distilled_vit) else timm_vit.VisionTransformer
    refuse_overrides(model, base, _MODEL_METHODS, name)
    refuse_unknown_parts(model, _MODEL_CHILDREN, _MODEL_TENSORS, name)
    refuse_hooks(model, name)
    vit: Any = model
    _check_ends(vit)
    require_type(vit.blocks, (nn.Sequential,), f"{name}.blocks")
    if len(vit.blocks) == 0:
        raise Unsupported(f"{name} has no blocks")
    for i, block in enumerate(vit.blocks):
        _check_block(block, f"block {i}")
    shapes = {(block.attn.num_heads, block.attn.head_dim, _hidden(block.mlp)) for block in vit.blocks}
    if len(shapes) > 1:
        raise Unsupported(f"{name}'s blocks differ in (heads, head width, MLP width), {sorted(shapes)}: one is allowed")


def _check_ends(vit: Any) -> None:
    """The parts before and after the blocks."""
    layers = _module("timm.layers")
    name = type(vit).__name__
    require_type(vit.patch_embed, (layers.PatchEmbed,), f"{name}.patch_embed")
    refuse_overrides(vit.patch_embed, layers.PatchEmbed, ("forward",), f"{name}.patch_embed")
    if vit.patch_embed.grid_size is None:
        raise Unsupported(f"{name} has no image size of its own: give img_size when building it")
    if vit.pos_embed is None and _tokens_without_positions(vit) != vit.num_prefix_tokens + vit.patch_embed.num_patches:
        raise Unsupported(f"{name} has no positions, and this timm forgets its class and register tokens then")
    require_type(vit.patch_drop, (nn.Identity, layers.PatchDropout), f"{name}.patch_drop")
    if getattr(vit.patch_drop, "prob", 0.0) > 0:
        raise Unsupported(f"{name}.patch_drop drops {vit.patch_drop.prob:.0%} of the patches itself in training")
    for part in ("norm_pre", "norm", "fc_norm"):
        require_type(getattr(vit, part), _norms(), f"{name}.{part}")
    if vit.attn_pool is not None:
        require_type(vit.attn_pool, (layers.AttentionPoolLatent,), f"{name}.attn_pool")
        if vit.attn_pool.pos_embed is not None:
            raise Unsupported(f"{name}.attn_pool adds positions to a fixed number of tokens")
    if vit.global_pool not in _POOLS:
        raise Unsupported(f"{name} has global_pool = {vit.global_pool!r}; understood: {', '.join(_POOLS)}")


def _tokens_without_positions(vit: Any) -> int:
    # Only where there are no positions, so no dropout is drawn; timm before 1.0.26 returned the patches alone.
    weight = vit.patch_embed.proj.weight
    shape = (*vit.patch_embed.grid_size,) if vit.dynamic_img_size else (vit.patch_embed.num_patches,)
    patches = weight.new_zeros(1, *shape, vit.embed_dim)
    return vit._pos_embed(patches).shape[1]


def _check_block(block: nn.Module, where: str) -> None:
    timm_vit = _module("timm.models.vision_transformer")
    require_type(block, (timm_vit.Block,), where)
    refuse_overrides(block, timm_vit.Block, ("forward",), where)
    refuse_unknown_parts(block, _BLOCK_CHILDREN, (), where)
    refuse_hooks(block, where)
    blk: Any = block
    for part in ("norm1", "norm2"):
        require_type(getattr(blk, part), _norms(), f"{where}.{part}")
    for part in ("ls1", "ls2"):
        require_type(getattr(blk, part), (nn.Identity, timm_vit.LayerScale), f"{where}.{part}")
    for part in ("drop_path1", "drop_path2"):
        require_type(getattr(blk, part), (nn.Identity, _module("timm.layers").DropPath), f"{where}.{part}")
    require_type(blk.mlp, _layer_types(_MLPS), f"{where}.mlp")
    require_type(blk.attn, (timm_vit.Attention,), f"{where}.attn")
    refuse_overrides(blk.attn, timm_vit.Attention, ("forward",), f"{where}.attn")
    refuse_unknown_parts(blk.attn, _ATTN_CHILDREN, (), f"{where}.attn")
    refuse_hooks(blk.attn, f"{where}.attn")
    for part in ("q_norm", "k_norm", "norm"):
        if hasattr(blk.attn, part):
            require_type(getattr(blk.attn, part), _norms(), f"{where}.attn.{part}")
    for part in ("num_heads", "head_dim", "scale", "fused_attn", "qkv", "attn_drop", "proj", "proj_drop"):
        if not hasattr(blk.attn, part):
            raise Unsupported(f"{where}.attn ({kind_of(blk.attn)}) has no {part}: this timm is not understood")


def _norms() -> tuple[type, ...]:
    return (nn.Identity, nn.LayerNorm, *_layer_types(_NORMS))


def _layer_types(names: Iterable[str]) -> tuple[type, ...]:
    found = (getattr(_module("timm.layers"), name, None) for name in names)
    return tuple(cls for cls in found if isinstance(cls, type))


def _module(name: str) -> Any:
    # Any, because timm's modules re-export names that its type hints do not call public.
    return importlib.import_module(name)


def _hidden(mlp: nn.Module) -> int:
    return sum(m.out_features for m in mlp.modules() if isinstance(m, nn.Linear))
