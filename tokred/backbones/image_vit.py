"""Small image ViTs of the project: timm's ``VisionTransformer``, with weights under timm's own names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.backbones.convert import CheckpointError, read_file
from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.foreign import load_strictly
from tokred.backbones.spec import BackboneInfo, BackboneSpec, set_info

FORMAT = "timm VisionTransformer"
HEADS = ("head",)


def build_image_vit(
    img_size: int = 32,
    patch_size: int = 4,
    dim: int = 96,
    depth: int = 8,
    num_heads: int = 3,
    mlp_ratio: float = 4.0,
    num_classes: int = 10,
) -> nn.Module:
    """A ``VisionTransformer`` with a class token that the classifier reads, and learned positions.

    Args:
        img_size, patch_size: pixels per side; dim: width C; depth: blocks; num_heads: of attention; mlp_ratio: hidden
            width of the MLP over C; num_classes: length of the logits.
    Raises:
        ValueError: sizes that do not go together.
        ImportError: timm is not installed.
    """
    if img_size % patch_size:
        raise ValueError(f"patch_size = {patch_size} does not divide img_size = {img_size}")
    if dim % num_heads:
        raise ValueError(f"num_heads = {num_heads} does not divide dim = {dim}")
    from timm.models.vision_transformer import VisionTransformer

    model: nn.Module = VisionTransformer(
        img_size=img_size,
        patch_size=patch_size,
        embed_dim=dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        num_classes=num_classes,
    )
    return model


def create_image_vit(
    spec: BackboneSpec,
    file: str | os.PathLike[str] | None,
    embedded: bool,
    num_classes: int | None,
    overrides: Mapping[str, Any],
) -> nn.Module:
    """A named image ViT with the weights of a file, or random.

    Args:
        spec: its sizes; file: its weights, None = random; embedded: whether the file came with the package.
        num_classes: length of the logits; None = that of the file, else of the spec.
        overrides: other arguments of ``build_image_vit``.
    Raises:
        CheckpointError: weights that cannot be read or do not fit, or a file of ours whose content was changed.
    """
    raw = None if file is None else read_file(file)
    if raw is not None and "sha256" in raw.metadata and raw.metadata["sha256"] != weights_digest(raw.tensors):
        raise CheckpointError(f"{raw.path}: its tensors do not have the sha256 that its header names: it was damaged")
    stored = None if raw is None else raw.tensors.get("head.weight")
    known = spec.builder["num_classes"] if stored is None else stored.shape[0]
    classes = known if num_classes is None else num_classes
    model = build_image_vit(**{**spec.builder, **overrides, "num_classes": classes})
    size = overrides.get("img_size", spec.size[0])
    sets = spec.label_sets if embedded and classes == known else ()  # a new head knows none of the classes
    built = replace(spec, size=(size, size), label_sets=sets)
    if raw is None:
        set_info(model, BackboneInfo(built, None, "random", ("weights are random: none were given",)))
        return model
    try:
        notes = load_strictly(raw.path, model, dict(raw.tensors), HEADS if num_classes is not None else ())
    except CheckpointError as error:
        if not (embedded and overrides):
            raise
        hint = f"{error}; pretrained=False builds {spec.name} with {', '.join(overrides)} changed and random weights"
        raise CheckpointError(
            hint, missing=error.missing, unexpected=error.unexpected, misshaped=error.misshaped
        ) from None
    weights = "embedded" if embedded else "timm"
    set_info(model, BackboneInfo(built, None if embedded else raw.path, weights, (*raw.notes, *notes)))
    return model


def save_image_vit(
    state: Mapping[str, Tensor], path: Path, *, source: str, dtype: torch.dtype, metadata: Mapping[str, str]
) -> str:
    """Write a safetensors file that ``create_image_vit`` reads, in one step.

    Args:
        state: the weights under timm's names; dtype: floating type to store; source: where they come from;
        metadata: more text for the header.
    Returns:
        sha256 of the stored tensors, which the header carries too.
    """
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in state.items()}
    digest = weights_digest(tensors)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, str(partial), metadata={**metadata, "layout": FORMAT, "source": source, "sha256": digest})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return digest
