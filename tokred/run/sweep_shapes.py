"""The sizes of a host that cannot be had here: enough to plan and to count, without weights and without clips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from tokred.backbones import adapter_for
from tokred.backbones.geometry import Geometry
from tokred.backbones.spec import BackboneSpec, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.measure.flops import MacReport, count, unreduced_plan


@dataclass(frozen=True)
class Shapes:
    """Sizes of a backbone; ``unreduced``: its multiply-adds; ``params``: number of its parameters."""

    spec: BackboneSpec
    geometry: Geometry
    unreduced: MacReport
    params: int


@lru_cache(maxsize=8)
def shapes_of(backbone: str, num_classes: int | None) -> Shapes:
    """The sizes of a backbone by name; its weights are never made.

    Raises:
        ValueError: no such backbone, or not with so many classes.
        ImportError: the library that it is from is not installed.
    """
    with torch.device("meta"):
        module = create_backbone(backbone, pretrained=False, num_classes=num_classes)
    info = backbone_info(module)
    assert info is not None
    geometry = adapter_for(module).geometry(module)
    params = sum(parameter.numel() for parameter in module.parameters())
    return Shapes(info.spec, geometry, count(geometry, unreduced_plan(geometry)), params)
