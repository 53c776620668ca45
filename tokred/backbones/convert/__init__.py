"""Checkpoints of the video ViT and Swin: reading any published layout, and writing safetensors."""

from __future__ import annotations

from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.convert.errors import CheckpointError
from tokred.backbones.convert.layouts import LAYOUTS
from tokred.backbones.convert.load import Checkpoint, Loaded, load_checkpoint, read_checkpoint
from tokred.backbones.convert.read import RawFile, read_file
from tokred.backbones.convert.save import save_weights, to_official

__all__ = [
    "LAYOUTS",
    "Checkpoint",
    "CheckpointError",
    "Loaded",
    "RawFile",
    "load_checkpoint",
    "read_checkpoint",
    "read_file",
    "save_weights",
    "to_official",
    "weights_digest",
]
