"""What a training run leaves: float16 weights with where they come from, and what they reach."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tokred.backbones.convert import save_weights
from tokred.data.source import Source
from tokred.run.train_image_spec import ImageViTSpec
from tokred.run.train_spec import TrainSpec

STORED = torch.float16


@dataclass(frozen=True)
class TrainResult:
    """What a finished run gives.

    Args:
        model: the trained model, float32, eval mode, without auxiliary heads.
        accuracy: change ("intact", "reversed", ...) -> label set -> top-1 in [0, 1].
        weights: the exported file.
        folder: where checkpoint and log lie.
        step: optimizer steps done.
    """

    model: nn.Module
    accuracy: dict[str, dict[str, float]]
    weights: Path
    folder: Path
    step: int

    def summary(self) -> dict[str, Any]:
        """The same in plain values, for JSON."""
        return {"steps": self.step, "top1": self.accuracy, "weights": str(self.weights), "folder": str(self.folder)}


def as_stored(model: nn.Module) -> nn.Module:
    """The model with its weights rounded to the precision of the file, so that what is measured is what is shipped."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(STORED))
    return model


def export(model: nn.Module, path: Path, spec: TrainSpec, source: Source, accuracy: dict[str, dict[str, float]]) -> str:
    """Writes safetensors with the recipe and the results in its header.

    Args:
        model: the trained model; of a reduced one its host's weights are written.
        path: the file.
        spec: the recipe.
        source: the held-out clips that it was measured on.
        accuracy: change -> label set -> top-1 in [0, 1].
    Returns:
        sha256 of the stored tensors.
    """
    host = getattr(model, "host", model)
    metadata = {"recipe": spec.name, **header(spec, source, accuracy)}
    if isinstance(spec.model, ImageViTSpec):
        from tokred.backbones.image_vit import save_image_vit

        origin = f"tokred train, recipe {spec.name}"
        return save_image_vit(host.state_dict(), path, source=origin, dtype=STORED, metadata=metadata)
    return save_weights(
        host.state_dict(), path, source=f"tokred train, recipe {spec.name}", dtype=STORED, metadata=metadata
    )


def header(spec: TrainSpec, source: Source, accuracy: dict[str, dict[str, float]]) -> dict[str, str]:
    """What a file tells about its training: the whole recipe, the held-out clips, and what was reached on them."""
    return {
        "seed": str(spec.seed),
        "spec": spec.model_dump_json(),
        "data": f"{source.name}, {len(source)} held-out clips",
        "data_digest": source.digest(),
        "top1": json.dumps(accuracy),
    }
