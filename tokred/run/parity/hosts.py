"""Hosts built from the weights and settings of a golden file: shapes come from the tensors, never from constants."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from tokred.backbones.videomae import VideoViT
from tokred.run.parity.golden import one_line
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings

NORM_EPS = 1e-6
"""Epsilon of every norm in the reference models, where a file does not give one."""

_NO_EFFECT = (
    "drop_rate",
    "attn_drop_rate",
    "drop_path_rate",
    "fc_drop_rate",
    "head_drop_rate",
    "init_scale",
    "use_checkpoint",
)
"""Constructor arguments of the reference models that do nothing in eval mode on given weights."""


def crop_clips(weights: dict[str, Tensor], clips: Tensor, ledger: Ledger) -> Tensor:
    """Clips without the rest that a reference convolution drops in silence and VideoViT refuses.

    Args:
        clips: (B, C, T, H, W).
    """
    kernel = _shape(weights, "patch_embed.proj.weight", 5)[2:]
    whole = [length // step * step for length, step in zip(clips.shape[2:], kernel)]
    if whole != list(clips.shape[2:]):
        ledger.notes.append(f"clip cropped to {'x'.join(map(str, whole))}, the rest is dropped as in the reference")
    return clips[:, :, : whole[0], : whole[1], : whole[2]]


def video_vit(weights: dict[str, Tensor], clips: Tensor, config: Settings) -> VideoViT:
    """VideoViT with the weights of the official VideoMAE (or STA) code.

    Args:
        weights: official state dict; clips: (B, C, T, H, W), whole tubelets.
        config: arguments of the official constructor.
    Raises:
        Malformed: weights and config contradict each other, or hold what is not understood.
    """
    dim, in_chans, tubelet, rows, columns = _shape(weights, "patch_embed.proj.weight", 5)
    if rows != columns:
        raise Malformed(f"patches of {rows} x {columns} pixels: VideoViT has square ones")
    frames, height, width = clips.shape[2:]
    depth = _depth(weights)
    hidden = _shape(weights, "blocks.0.mlp.fc1.weight", 2)[0]
    scaled = "blocks.0.gamma_1" in weights
    mean_pooling = "fc_norm.weight" in weights
    _agree_sizes(config, dim=dim, depth=depth, in_chans=in_chans, hidden=hidden)
    config.agree_pair("patch_size", (rows, columns))
    config.agree("tubelet_size", tubelet)
    name = "all_frames" if "all_frames" in config else "num_frames"
    given = config.whole(name, frames, least=1)
    if given // tubelet * tubelet != frames:
        raise Malformed(f"config.{name} = {given}, but the clips have {frames} frames")
    config.without_effect("num_frames")
    _agree_pixels(config, (height, width), (rows, columns))
    config.agree("qkv_bias", "blocks.0.attn.q_bias" in weights)
    config.agree("use_learnable_pos_emb", "pos_embed" in weights)
    config.agree("use_mean_pooling", mean_pooling)
    if (config.number("init_values", 1.0 if scaled else 0.0) > 0) != scaled:
        raise Malformed(f"config.init_values contradicts the weights, which have {'' if scaled else 'no '}layer scale")
    model = VideoViT(
        img_size=(height, width),
        patch_size=rows,
        tubelet_size=tubelet,
        frames=frames,
        in_chans=in_chans,
        dim=dim,
        depth=depth,
        num_heads=config.whole("num_heads", least=1),
        mlp_ratio=(hidden + 0.5) / dim,  # half a unit, so that rounding down gives the hidden width back
        num_classes=_classes(weights, config),
        qkv_bias="blocks.0.attn.q_bias" in weights,
        init_values=float(scaled),
        positions="learned" if "pos_embed" in weights else "flat",
        mean_pooling=mean_pooling,
    )
    scale = config.take("qk_scale", None)
    if scale is not None:
        for module in model.modules():
            if hasattr(module, "num_heads"):
                module.scale = float(scale)  # type: ignore[assignment]
    config.agree("attn_head_dim", None, "VideoViT's heads")
    return _finished(model, weights, config, clips)


def timm_vit(weights: dict[str, Tensor], images: Tensor, config: Settings, pool: str) -> nn.Module:
    """timm's VisionTransformer with the given weights.

    Args:
        weights: state dict with timm's names; images: (B, C, H, W); pool: timm's ``global_pool``.
    Raises:
        Malformed: weights and config contradict each other, or hold what is not understood.
    """
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    dim, in_chans, rows, columns = _shape(weights, "patch_embed.proj.weight", 4)
    height, width = images.shape[2:]
    depth = _depth(weights)
    hidden = _shape(weights, "blocks.0.mlp.fc1.weight", 2)[0]
    _agree_sizes(config, dim=dim, depth=depth, in_chans=in_chans, hidden=hidden)
    config.agree_pair("patch_size", (rows, columns))
    qkv_bias = "blocks.0.attn.qkv.bias" in weights
    config.agree("qkv_bias", qkv_bias)
    distilled = "dist_token" in weights
    patches = (height // rows) * (width // columns)
    arguments: dict[str, Any] = {
        "img_size": (height, width),
        "patch_size": (rows, columns),
        "in_chans": in_chans,
        "num_classes": _classes(weights, config),
        "global_pool": pool,
        "embed_dim": dim,
        "depth": depth,
        "num_heads": config.whole("num_heads", least=1),
        "mlp_ratio": (hidden + 0.5) / dim,
        "qkv_bias": qkv_bias,
        "class_token": "cls_token" in weights,
        "fc_norm": "fc_norm.weight" in weights,
    }
    for name in ("global_pool", "class_token", "fc_norm"):
        config.agree(name, arguments[name], "the weights")
    if not distilled and "cls_token" in weights and _shape(weights, "pos_embed", 3)[1] == patches:
        arguments["no_embed_class"] = True
    model = (VisionTransformerDistilled if distilled else VisionTransformer)(**arguments)
    return _finished(model, weights, config, images)


def timm_block(weights: dict[str, Tensor], dtype: torch.dtype, heads: int, eps: float) -> nn.Module:
    """One timm block (norm1, attention, norm2, MLP) with the given weights."""
    from timm.models.vision_transformer import Block

    hidden, dim = _shape(weights, "mlp.fc1.weight", 2)
    block = Block(dim, heads, mlp_ratio=(hidden + 0.5) / dim, qkv_bias="attn.qkv.bias" in weights)
    return _loaded(block, weights, dtype, eps)


def _finished(model: nn.Module, weights: dict[str, Tensor], config: Settings, like: Tensor) -> Any:
    config.without_effect(*_NO_EFFECT)
    eps = config.number("norm_eps", None) if "norm_eps" in config else config.number("ln_eps", NORM_EPS)
    return _loaded(model, weights, like.dtype, eps)


def _loaded(model: nn.Module, weights: dict[str, Tensor], dtype: torch.dtype, eps: float) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps
    model.to(next(iter(weights.values())).device, dtype)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise Malformed(f"the weights do not fit: {one_line(error)}") from error
    return model.eval()


def _agree_sizes(config: Settings, *, dim: int, depth: int, in_chans: int, hidden: int) -> None:
    config.agree("embed_dim", dim)
    config.agree("depth", depth)
    config.agree("in_chans", in_chans)
    ratio = config.number("mlp_ratio", hidden / dim)
    if int(dim * ratio) != hidden:
        raise Malformed(f"config.mlp_ratio = {ratio} at width {dim}, but the hidden width is {hidden}")


def _agree_pixels(config: Settings, size: tuple[int, int], patch: tuple[int, int]) -> None:
    given = config.take("img_size", list(size))
    pair = given if isinstance(given, list) else [given, given]
    if [length // step * step for length, step in zip(pair, patch)] != list(size):
        raise Malformed(f"config.img_size = {given}, but the input has {size[0]} x {size[1]} pixels")


def _classes(weights: dict[str, Tensor], config: Settings) -> int:
    classes = _shape(weights, "head.weight", 2)[0] if "head.weight" in weights else 0
    config.agree("num_classes", classes)
    return classes


def _depth(weights: dict[str, Tensor]) -> int:
    blocks = {int(m.group(1)) for name in weights if (m := re.match(r"blocks\.(\d+)\.", name))}
    if not blocks or blocks != set(range(len(blocks))):
        raise Malformed(f"the weights name {len(blocks)} blocks, not 0, 1, 2, ... without a gap")
    return len(blocks)


def _shape(weights: dict[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    if name not in weights:
        raise Malformed(f"the weights have no {name}")
    shape = tuple(weights[name].shape)
    if len(shape) != dims or 0 in shape:
        raise Malformed(f"{name} has shape {shape}: {dims} dimensions were expected")
    return shape
