"""Top-1 accuracy per label set, and its paired comparison between two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tokred.data.source import LabelSet
from tokred.measure.statistics import Interval, mcnemar, paired_difference, wilson
from tokred.measure.views import item_scores


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of one model in one label set.

    Args:
        label_set: its name.
        top1: share of items that are right, with Wilson's 95 % interval.
        items: the items; correct: whether each one is right.
    """

    label_set: str
    top1: Interval
    items: tuple[int, ...]
    correct: tuple[bool, ...]


@dataclass(frozen=True)
class Comparison:
    """Accuracy of a reduced model minus that of the unreduced one, on the same items.

    Args:
        label_set: its name.
        difference: with Tango's 95 % interval for paired shares.
        p: exact two-sided McNemar test; see ``statistics.holm`` for several of them.
        gained: items that only the reduced model has right; lost: items that only the unreduced one has right.
    """

    label_set: str
    difference: Interval
    p: float
    gained: int
    lost: int


def accuracy(logits: Tensor, labels: Tensor, items: Sequence[int], label_set: LabelSet) -> Accuracy:
    """Top-1 accuracy per item, probabilities averaged over its views.

    Args:
        logits: (V, classes) of all views.
        labels: (V,) class index inside the label set (0 to K - 1), the same for all views of an item.
        items: the item of each view.
        label_set: which logits compete.
    Raises:
        ValueError: a label outside the label set, or views of one item with different labels.
    """
    scores = item_scores(logits, items, label_set)
    truth = labels_of_items(labels, items, label_set)
    correct = tuple(int(best) == truth[item] for best, item in zip(scores.top1, scores.items, strict=True))
    return Accuracy(label_set.name, wilson(sum(correct), len(correct)), scores.items, correct)


def compare(reduced: Accuracy, unreduced: Accuracy) -> Comparison:
    """The paired comparison of a reduced model with the unreduced one.

    Raises:
        ValueError: other label sets or other items.
    """
    if reduced.label_set != unreduced.label_set:
        raise ValueError(
            f"cannot compare label set {reduced.label_set!r} with {unreduced.label_set!r}: they must be the same"
        )
    theirs = dict(zip(unreduced.items, unreduced.correct, strict=True))
    if set(theirs) != set(reduced.items):
        alone = len(set(theirs) ^ set(reduced.items))
        raise ValueError(f"a paired comparison needs the same items; {alone} items are only on one side")
    pairs = [(theirs[item], ours) for item, ours in zip(reduced.items, reduced.correct, strict=True)]
    gained, lost = pairs.count((False, True)), pairs.count((True, False))
    return Comparison(
        label_set=reduced.label_set,
        difference=paired_difference(gained, lost, len(pairs)),
        p=mcnemar(gained, lost),
        gained=gained,
        lost=lost,
    )


def labels_of_items(labels: Tensor, items: Sequence[int], label_set: LabelSet) -> dict[int, int]:
    """The label of each item, from those of its views.

    Raises:
        ValueError: a label outside the label set, or views of one item with different labels.
    """
    if labels.shape != (len(items),):
        raise ValueError(f"labels must be ({len(items)},), one per view, got shape {tuple(labels.shape)}")
    truth: dict[int, int] = {}
    for item, label in zip(items, labels.tolist(), strict=True):
        if not 0 <= label < len(label_set.classes):
            raise ValueError(
                f"item {item} has label {label} in {label_set.name!r}; allowed: 0 to {len(label_set.classes) - 1}"
            )
        if truth.setdefault(item, label) != label:
            raise ValueError(f"views of item {item} have labels {truth[item]} and {label} in {label_set.name!r}")
    return truth
