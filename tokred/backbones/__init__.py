"""Hosts: the project's own backbones, and adapters that read other libraries' models."""

from __future__ import annotations

import importlib

from torch import nn

from tokred.backbones.adapter import Adapter, Unsupported

__all__ = ["Adapter", "Unsupported", "adapter_for"]

_ADAPTERS = (
    ("tokred.backbones.video_vit_adapter", "VideoViTAdapter"),
    ("tokred.backbones.videoswin_adapter", "VideoSwinAdapter"),
    ("tokred.backbones.vivit_adapter", "ViViTAdapter"),
    ("tokred.backbones.torchvision_swin", "TorchvisionSwinAdapter"),
    ("tokred.backbones.timm_vit", "TimmViTAdapter"),
    ("tokred.backbones.hf", "HFVideoMAEAdapter"),
)


def adapter_for(model: nn.Module) -> Adapter:
    """The adapter that reads the model.

    Raises:
        Unsupported: no adapter does.
    """
    names = []
    for module, name in _ADAPTERS:
        adapter: Adapter = getattr(importlib.import_module(module), name)()
        if adapter.accepts(model):
            return adapter
        names.append(adapter.name)
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    raise Unsupported(f"{kind} is not a model that tokred reads; it reads {', '.join(names)}")
