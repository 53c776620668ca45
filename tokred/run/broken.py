"""Clips on which a model gives NaN or infinity: taken out of a comparison for all rows alike, and named."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from tokred.data.source import Failure
from tokred.run.evaluate import Predictions


def broken_items(predictions: Predictions) -> list[int]:
    """Items with a view whose logits or features are not finite, rising."""
    finite = np.isfinite(predictions.logits).all(axis=1) & np.isfinite(predictions.features).all(axis=1)
    return sorted(set(predictions.items[~finite].tolist()))


def without(predictions: Predictions, items: Iterable[int]) -> Predictions | None:
    """The answers on all other items; None where there are none."""
    left = ~np.isin(predictions.items, list(items))
    if not left.any():
        return None
    return Predictions.of({name: values[left] for name, values in predictions.arrays.items()})


def why_broken(predictions: Predictions, name: Callable[[int], str]) -> str | None:
    """Why answers cannot be scored, in one line; None = they can."""
    broken = broken_items(predictions)
    if not broken:
        return None
    items = len(set(predictions.items.tolist()))
    return f"its answers are NaN or infinite on {len(broken)} of {items} clips, first: {name(broken[0])}"


def unusable(items: Iterable[int], name: Callable[[int], str]) -> list[Failure]:
    """One failure per item on which the unreduced model itself is not finite, so that nothing can be compared."""
    return [
        Failure(name(item), "the unreduced model's answer is NaN or infinite: left out of every row") for item in items
    ]
