"""Backbones by name."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from tokred.backbones.convert import LAYOUTS, CheckpointError, load_checkpoint, read_checkpoint
from tokred.backbones.foreign import create_hf, create_timm, timm_matches
from tokred.backbones.image_vit import build_image_vit, create_image_vit
from tokred.backbones.spec import BackboneInfo, BackboneSpec, set_info
from tokred.backbones.videomae import VideoViT
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.vivit import ViViT
from tokred.data.pictures import CIFAR10_CLASSES, CLASS
from tokred.data.source import LabelSet
from tokred.data.synthetic import MEAN, MOTIONS, SHAPES, STD

FAMILIES: dict[str, type[VideoViT] | type[VideoSwin] | type[ViViT]] = {
    "videomae_vit": VideoViT,
    "videoswin": VideoSwin,
    "vivit": ViViT,
}
WEIGHTS_FOLDER = Path(__file__).with_name("weights")


def _videomae(size: str, dim: int, depth: int, num_heads: int) -> BackboneSpec:
    builder = {"dim": dim, "depth": depth, "num_heads": num_heads, "num_classes": 400}
    return BackboneSpec(f"videomae_vit_{size}", frames=16, size=(224, 224), stride=4, builder=builder)


def _videoswin(size: str, dim: int, depths: tuple[int, ...], heads: tuple[int, ...], **other: Any) -> BackboneSpec:
    builder = {"dim": dim, "depths": depths, "num_heads": heads, "frames": 32, "num_classes": 400, **other}
    return BackboneSpec(f"videoswin_{size}", frames=32, size=(224, 224), stride=2, builder=builder, family="videoswin")


def _vivit_base() -> BackboneSpec:
    """The model of Kinetics-400 in the Eventful Transformers code."""
    builder = {"frames": 32, "num_classes": 400}
    return BackboneSpec(
        "vivit_base", 32, (224, 224), (0.45,) * 3, (0.225,) * 3, stride=2, builder=builder, family="vivit"
    )


def _image_nano() -> BackboneSpec:
    """On CIFAR-10, normalised by the mean and deviation of its training set."""
    builder = {"img_size": 32, "patch_size": 4, "dim": 96, "depth": 8, "num_heads": 3, "num_classes": 10}
    return BackboneSpec(
        "vit_nano",
        frames=1,
        size=(32, 32),
        mean=(0.491, 0.482, 0.447),
        std=(0.247, 0.243, 0.262),
        layout="BCHW",
        builder=builder,
        weights="vit_nano.safetensors",
        label_sets=(LabelSet(CLASS, CIFAR10_CLASSES),),
        family="vit",
    )


def _nano(family: str, builder: dict[str, Any]) -> BackboneSpec:
    classes = {"img_size": 64, "frames": 16, "num_classes": len(SHAPES) + len(MOTIONS)}
    return BackboneSpec(
        f"{family}_nano",
        frames=16,
        size=(64, 64),
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        builder={**classes, **builder},
        weights=f"{family}_nano.safetensors",
        label_sets=(LabelSet("appearance", SHAPES), LabelSet("motion", MOTIONS, offset=len(SHAPES))),
        family=family,
    )


_VIT_NANO = {"patch_size": 8, "tubelet_size": 2, "dim": 96, "depth": 9, "num_heads": 3, "positions": "grid"}
_SWIN_NANO = {
    "patch_size": (2, 4, 4),
    "dim": 32,
    "depths": (2, 2, 2, 1),
    "num_heads": (1, 2, 4, 8),
    "window": (8, 4, 4),
}

_VIVIT_NANO = {"patch_size": 8, "dim": 96, "depth": 6, "temporal_depth": 2, "num_heads": 3}

SPECS: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _nano("videomae_vit", _VIT_NANO),
        _videomae("small", 384, 12, 6),
        _videomae("base", 768, 12, 12),
        _videomae("large", 1024, 24, 16),
        _videomae("huge", 1280, 32, 16),
        _nano("videoswin", _SWIN_NANO),
        _videoswin("tiny", 96, (2, 2, 6, 2), (3, 6, 12, 24)),
        _videoswin("small", 96, (2, 2, 18, 2), (3, 6, 12, 24)),
        _videoswin("base", 128, (2, 2, 18, 2), (4, 8, 16, 32)),
        # The model of Something-Something v2: twice the window in time, 174 classes.
        _videoswin("base_w16", 128, (2, 2, 18, 2), (4, 8, 16, 32), window=(16, 7, 7), num_classes=174),
        _image_nano(),
        _nano("vivit", _VIVIT_NANO),
        _vivit_base(),
    )
}


class UnknownBackbone(ValueError):
    """A name that is no backbone; the message gives close matches."""


def list_backbones() -> list[str]:
    """The names with a size of their own; ``timm/NAME`` and ``hf/FOLDER`` are understood besides."""
    return list(SPECS)


def backbone_spec(name: str) -> BackboneSpec:
    """The spec of a named size.

    Raises:
        UnknownBackbone: with close matches.
    """
    if name not in SPECS:
        raise UnknownBackbone(_unknown(name))
    return SPECS[name]


def create_backbone(
    name: str,
    checkpoint: str | os.PathLike[str] | None = None,
    *,
    pretrained: bool | None = None,
    num_classes: int | None = None,
    **overrides: Any,
) -> nn.Module:
    """Build a backbone in eval mode.

    Args:
        name: one of ``list_backbones()``, ``timm/NAME`` for an image model of timm, or ``hf/FOLDER`` for a local
            folder with a ``VideoMAEForVideoClassification``.
        checkpoint: weights, in any layout that ``tokred.backbones.convert`` reads (timm names: the model's own).
        pretrained: use the embedded weights; default: where there are some and no checkpoint is given. False builds
            the sizes alone (of an ``hf/`` folder too). Nothing is downloaded.
        num_classes: length of the logits; default: that of the weights, else of the named size. Where the weights
            have another, their head is dropped and a new one starts untrained, noted in ``backbone_info``.
        overrides: other arguments of the model, e.g. ``frames=32``.
    Raises:
        UnknownBackbone: with close matches.
        CheckpointError: weights that cannot be read or do not fit.
        ValueError: arguments that the backbone does not take, or that exclude each other.
        ImportError: the library of a ``timm/`` or ``hf/`` name is not installed.
    """
    if pretrained and checkpoint is not None:
        raise ValueError(f"pretrained=True and checkpoint={os.fspath(checkpoint)!r} exclude each other")
    kind, _, rest = name.partition("/")
    if kind == "timm" and rest:
        if pretrained:
            raise ValueError(f"{name} has no embedded weights and nothing is downloaded: give a file with checkpoint=")
        return create_timm(rest, checkpoint, num_classes, overrides).eval()
    if kind == "hf" and rest:
        given = list(overrides)
        given += ["checkpoint"] if checkpoint is not None else []
        given += ["pretrained"] if pretrained else []
        if given:
            raise ValueError(f"{name} has sizes and weights of its own and does not take {', '.join(given)}")
        return create_hf(rest, num_classes, weights=pretrained is not False).eval()
    return _create(backbone_spec(name), checkpoint, pretrained, num_classes, overrides).eval()


def _create(
    spec: BackboneSpec,
    checkpoint: str | os.PathLike[str] | None,
    pretrained: bool | None,
    num_classes: int | None,
    overrides: dict[str, Any],
) -> nn.Module:
    kind = FAMILIES.get(spec.family, build_image_vit)
    known = [p for p in inspect.signature(kind).parameters if p != "num_classes"]
    unknown = [key for key in overrides if key not in known]
    if unknown:
        raise ValueError(f"{spec.name} does not take {', '.join(unknown)}; it takes {', '.join(known)}")
    if pretrained and not spec.weights:
        raise ValueError(f"{spec.name} has no embedded weights: give a file with checkpoint=")
    embedded = bool(spec.weights) and checkpoint is None and pretrained is not False
    file = WEIGHTS_FOLDER / spec.weights if embedded else checkpoint
    if not isinstance(kind, type):
        return create_image_vit(spec, file, embedded, num_classes, overrides)
    content = None if file is None else read_checkpoint(file)
    classes = num_classes
    if classes is None:
        classes = spec.builder["num_classes"] if content is None or content.classes is None else content.classes
    model = kind(**{**spec.builder, **overrides, "num_classes": classes})
    built = replace(spec, frames=model.frames, size=model.img_size, label_sets=spec.label_sets if embedded else ())
    if content is None:
        set_info(model, BackboneInfo(built, None, "random", ("weights are random: none were given",)))
        return model
    try:
        loaded = load_checkpoint(model, content, new_head=num_classes is not None)
    except CheckpointError as error:
        if not (embedded and overrides):
            raise
        hint = f"{error}; pretrained=False builds {spec.name} with {', '.join(overrides)} changed and random weights"
        raise CheckpointError(
            hint, missing=error.missing, unexpected=error.unexpected, misshaped=error.misshaped
        ) from None
    if classes != content.classes:
        built = replace(built, label_sets=())  # a new head knows none of the classes
    weights = "embedded" if embedded else LAYOUTS[loaded.layout]
    set_info(model, BackboneInfo(built, None if embedded else loaded.path, weights, loaded.notes))
    return model


def _unknown(name: str) -> str:
    candidates: Iterable[str] = [*SPECS, *(f"timm/{match}" for match in timm_matches(name))]
    close = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.5)
    meant = f"; close: {', '.join(close)}" if close else ""
    return f"no backbone is named {name!r}{meant}; known: {', '.join(SPECS)}, timm/NAME, hf/FOLDER"
