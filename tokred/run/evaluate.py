"""What a model says about every clip of a source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from tokred.attach import Attached
from tokred.backbones.spec import BackboneSpec
from tokred.data.source import Source

Array = np.ndarray


@dataclass(frozen=True)
class Predictions:
    """Outputs for all views of all usable items.

    Args:
        logits: (V, classes) float32; features: (V, C) float32, pooled, before the classifier.
        items: (V,) int64, the item of each view; labels: label set -> (V,) int64.
    """

    logits: Array
    features: Array
    items: Array
    labels: dict[str, Array] = field(default_factory=dict)


def predict(
    model: Attached,
    source: Source,
    spec: BackboneSpec,
    *,
    batch_size: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    advance: Callable[[int], None] | None = None,
) -> Predictions:
    """Run the attached model over the source in its fixed order.

    Args:
        model: attached, on ``device`` and in ``dtype``; it is put in eval mode.
        spec: how the host wants its clips.
        advance: called with the number of clips done, after each batch.
    Raises:
        ValueError: the source gave no clip at all.
    """
    model.eval()
    logits, features, items = [], [], []
    labels: dict[str, list[Array]] = {}
    with torch.inference_mode():
        for batch in source.batches(batch_size):
            run = model.run(spec.arrange(batch.clips.to(device, dtype)))
            logits.append(run.logits.float().cpu().numpy())
            features.append(run.pooled.float().cpu().numpy())
            items.append(np.asarray(batch.items, dtype=np.int64))
            for name, values in batch.labels.items():
                labels.setdefault(name, []).append(values.numpy())
            if advance is not None:
                advance(len(batch.items))
    if not logits:
        raise ValueError(f"{source.name} gave no clip that can be used")
    joined = {name: np.concatenate(values) for name, values in labels.items()}
    return Predictions(np.concatenate(logits), np.concatenate(features), np.concatenate(items), joined)
