"""One number out of several seeds: other clips are more clips, the same clips are no second sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokred.data.source import LabelSet
from tokred.measure.accuracy import Accuracy, accuracy
from tokred.measure.statistics import Interval, bootstrap, mcnemar, paired_difference, wilson
from tokred.run.evaluate import Predictions

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Answers of one seed.

    Args:
        data: digest of its clips; ours: what was right; theirs: what it is compared with, on the same items; None
            where there is nothing to compare.
    """

    data: str
    ours: Accuracy
    theirs: Accuracy | None = None


def scored(found: Predictions, label_set: LabelSet) -> Accuracy:
    """What a cell has right in one of its label sets."""
    labels = torch.from_numpy(found.labels[label_set.name])
    return accuracy(torch.from_numpy(found.logits), labels, found.items.tolist(), label_set)


def pooled_top1(parts: Sequence[Part]) -> Interval:
    """Share of clips that are right over all seeds.

    Returns:
        With Wilson's 95 % interval over the clips of all seeds. Where seeds share their clips each clip counts once,
        with its mean over the seeds, and the interval is a bootstrap over clips.
    """
    values = per_clip([(part.data, _right(part.ours)) for part in parts])
    return bootstrap(values) if _shared(parts) else wilson(round(float(values.sum())), len(values))


def pooled_difference(parts: Sequence[Part]) -> tuple[Interval, float] | None:
    """Difference of the two shares over all seeds, and its p value; None without a part that has both.

    Returns:
        Tango's interval and McNemar's exact test over the clips of all seeds; where seeds share their clips a
        bootstrap and Wilcoxon's test over the differences per clip, each clip once.
    """
    paired = [part for part in parts if part.theirs is not None]
    if not paired:
        return None
    gaps = per_clip([(part.data, _gaps(part)) for part in paired])
    if _shared(paired):
        return bootstrap(gaps), signed_rank(gaps)
    gained, lost = int((gaps > 0).sum()), int((gaps < 0).sum())
    return paired_difference(gained, lost, len(gaps)), mcnemar(gained, lost)


def per_clip(parts: Sequence[tuple[str, NDArray[Any]]]) -> NDArray[Any]:
    """Values of all clips, each clip once.

    Args:
        parts: digest of the clips, values (V, ...) in their order; those of one digest have one length and are
            averaged over.
    Returns:
        (all clips, ...) in the order in which their digests first came.
    """
    found: dict[str, list[NDArray[Any]]] = {}
    for data, values in parts:
        found.setdefault(data, []).append(values)
    return np.concatenate([np.mean(same, axis=0) if len(same) > 1 else same[0] for same in found.values()])


def signed_rank(gaps: NDArray[Any]) -> float:
    """Two-sided p value of Wilcoxon's signed-rank test; 1.0 where nothing differs."""
    from scipy.stats import wilcoxon

    return float(wilcoxon(gaps).pvalue) if np.any(gaps) else 1.0


def _shared(parts: Sequence[Part]) -> bool:
    return len({part.data for part in parts}) < len(parts)


def _right(found: Accuracy) -> Floats:
    return np.array(found.correct, dtype=np.float64)


def _gaps(part: Part) -> Floats:
    """Ours minus theirs, in the order of our items.

    Raises:
        ValueError: other items.
    """
    assert part.theirs is not None
    if set(part.ours.items) != set(part.theirs.items):
        alone = len(set(part.ours.items) ^ set(part.theirs.items))
        raise ValueError(f"a paired comparison needs the same items; {alone} items are only on one side")
    theirs = dict(zip(part.theirs.items, part.theirs.correct, strict=True))
    return _right(part.ours) - np.array([theirs[item] for item in part.ours.items], dtype=np.float64)
