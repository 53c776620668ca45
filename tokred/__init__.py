"""tokred: token reduction for vision and video transformers, compared fairly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokred.attach import Attached, Run, attach, detach
from tokred.compose import compose
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer, keep_patches, keep_top
from tokred.reduction import Fuse, Keep, Merge, Mix, Reduction
from tokred.registry import build, list_methods, register
from tokred.schedule import Schedule
from tokred.tokens import Grid, Tokens

if TYPE_CHECKING:
    from tokred.api import show, sweep
    from tokred.backbones.zoo import create_backbone
    from tokred.report.frames import results

__version__ = "0.1.0"
__all__ = [
    "Attached",
    "Capabilities",
    "Fuse",
    "Grid",
    "Keep",
    "Merge",
    "Mix",
    "Probe",
    "Reduction",
    "Run",
    "Schedule",
    "Site",
    "TokenReducer",
    "Tokens",
    "attach",
    "build",
    "compose",
    "create_backbone",
    "detach",
    "keep_patches",
    "keep_top",
    "list_methods",
    "register",
    "results",
    "show",
    "sweep",
]


# create_backbone reads checkpoints, testing needs hypothesis, the others pandas or a video reader: loaded when first
# used, so that importing tokred stays lean.
_LATER = {
    "create_backbone": "tokred.backbones.zoo",
    "results": "tokred.report.frames",
    "show": "tokred.api",
    "sweep": "tokred.api",
}


def __getattr__(name: str) -> Any:
    import importlib

    if name == "testing":
        return importlib.import_module("tokred.testing")
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'tokred' has no attribute {name!r}")
