"""Checkpoints of the factorised ViViT, as the Eventful Transformers code writes them."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt

import torch
from torch import Tensor

from tokred.backbones.positions import resample
from tokred.backbones.vivit import ViViT
from tokred.tokens import Grid

VIVIT_LAYOUTS = frozenset({"vivit", "tokred-vivit"})
TOKRED_VIVIT_FORMAT = "tokred-vivit"
_TABLE = "{}_model.backbone.position_encoding.encoding"


def vivit_layout(names: Iterable[str]) -> str | None:
    """Which layout of ViViT the names are of; None = of another model."""
    found = set(names)
    if "spatial_model.class_token" not in found:
        return None
    return "vivit" if "classifier.weight" in found else "tokred-vivit"


def vivit_name(key: str) -> str:
    """A key under the names that ``ViViT`` uses."""
    return f"head.{key.removeprefix('classifier.')}" if key.startswith("classifier.") else key


def fit_vivit(model: ViViT, state: dict[str, Tensor], notes: list[str], hints: list[str]) -> None:
    """Bring the spatial positions to the model's grid, in place; what cannot be is left for the comparison of keys.

    Args:
        notes: what was converted; hints: what may be done where something does not fit.
    """
    name = _TABLE.format("spatial")
    given, own = state.get(name), model.spatial_model.backbone.position_encoding.encoding
    if given is not None and given.ndim == 3 and given.shape != own.shape and given.shape[2] == own.shape[2]:
        side = isqrt(max(given.shape[1] - 1, 0))
        if side * side != given.shape[1] - 1 or not side:
            hints.append(f"{name} of {given.shape[1]} tokens is no square grid behind a class token")
        else:
            new = Grid(1, model.grid.h, model.grid.w)
            state[name] = torch.cat([given[:, :1], resample(given[:, 1:], Grid(1, side, side), new)], dim=1)
            notes.append(f"spatial positions resampled bicubically from {side}x{side} to {new.h}x{new.w}")
    times = state.get(_TABLE.format("temporal"))
    if times is not None and times.ndim == 3 and times.shape[1] != model.grid.t + 1:
        steps = times.shape[1] - 1
        hints.append(f"the file has positions for {steps} steps, the model takes {model.grid.t}: frames=N sets them")
