"""From predictions and timings to the numbers of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tokred.data.source import LabelSet
from tokred.measure.accuracy import accuracy
from tokred.measure.accuracy import compare as compare_accuracy
from tokred.measure.agreement import agreement, feature_distance
from tokred.measure.latency import Timing, speedup
from tokred.run.evaluate import Predictions


def score_row(
    ours: Predictions,
    unreduced: Predictions,
    label_sets: Sequence[LabelSet],
    tasks: Sequence[LabelSet] = (),
    *,
    is_reference: bool,
) -> dict[str, Any]:
    """Accuracy with intervals and paired tests, agreement, KL and feature distance of one row.

    Args:
        ours: of the row; unreduced: of the unreduced model on the same clips.
        label_sets: label sets of the data, with their places in the logits.
        tasks: what the model's logits are known to tell, whether there are labels or not; agreement is taken inside
            each of them (none known: inside each label set).
        is_reference: the row is the unreduced model itself.
    """
    items = ours.items.tolist()
    logits, theirs = torch.from_numpy(ours.logits), torch.from_numpy(unreduced.logits)
    entry: dict[str, Any] = {"accuracy": {}}
    for label_set in label_sets:
        if label_set.name not in ours.labels:
            continue
        labels = torch.from_numpy(ours.labels[label_set.name])
        own = accuracy(logits, labels, items, label_set)
        numbers: dict[str, Any] = {
            "top1": own.top1.value,
            "low": own.top1.low,
            "high": own.top1.high,
            "n": own.top1.n,
            "diff": None,
            "diff_low": None,
            "diff_high": None,
            "p": None,
        }
        if not is_reference:
            paired = compare_accuracy(own, accuracy(theirs, labels, items, label_set))
            difference = paired.difference
            numbers |= {
                "diff": difference.value,
                "diff_low": difference.low,
                "diff_high": difference.high,
                "p": paired.p,
            }
        entry["accuracy"][label_set.name] = numbers
    if is_reference:
        return entry
    found = agreement(logits, theirs, items, tasks or label_sets)
    joint = found.get("joint") or next(iter(found.values()))
    same = joint.same_top1
    distance = feature_distance(torch.from_numpy(ours.features), torch.from_numpy(unreduced.features), items)
    entry["agreement"] = {"value": same.value, "low": same.low, "high": same.high}
    entry["kl"] = joint.kl.value
    entry["feature_distance"] = distance.value
    return entry


def speed_entry(timing: Timing, baseline: Timing, batch: int, share: float | None) -> dict[str, Any]:
    """Clips per second, spread, and the speed-up over the unreduced model of the same interleaved run."""
    ratio = speedup(timing, baseline)
    return {
        "clips_per_s": 1000.0 * batch / timing.median_ms,
        "ms_median": timing.median_ms,
        "ms_iqr": timing.iqr_ms,
        "speedup": ratio.value,
        "speedup_low": ratio.low,
        "speedup_high": ratio.high,
        "implied": None if not share else 1.0 / share,
    }
