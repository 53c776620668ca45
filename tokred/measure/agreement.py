"""How far a reduced model is from the unreduced one when nobody knows the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.data.source import LabelSet
from tokred.measure.statistics import Interval, bootstrap, wilson
from tokred.measure.views import ItemScores, item_scores, mean_over_views, whole


@dataclass(frozen=True)
class Agreement:
    """A reduced model against the unreduced one, on the same items.

    Args:
        label_set: its name, or "joint" over several.
        same_top1: share of items with the same most probable class, with Wilson's 95 % interval.
        kl: mean of KL(unreduced || reduced) over items, in nats, with a 95 % bootstrap interval.
    """

    label_set: str
    same_top1: Interval
    kl: Interval


def agreement(
    reduced: Tensor, unreduced: Tensor, items: Sequence[int], label_sets: Sequence[LabelSet] = ()
) -> dict[str, Agreement]:
    """Agreement and KL divergence per label set; softmax inside each slice, probabilities averaged over views.

    Args:
        reduced: (V, classes) logits of the reduced model; unreduced: of the unreduced one on the same views.
        items: the item of each view.
        label_sets: slices of the logits; none = one slice over all of them, called "all".
    Returns:
        One entry per label set, and "joint" when there are several: the same top-1 in every slice, and the KL of
        the slices taken as independent, which is the sum of theirs.
    Raises:
        ValueError: other shapes, label sets outside the logits, or label sets of one name.
    """
    _same_shape(reduced, unreduced, "logits")
    sets = tuple(label_sets) or (whole(reduced.shape[1]),)
    names = [s.name for s in sets]
    if len(set(names)) < len(names) or (len(sets) > 1 and "joint" in names):
        raise ValueError(f"label sets must have different names, none of them 'joint', got {names}")
    same: list[Tensor] = []
    divergence: list[Tensor] = []
    for label_set in sets:
        ours, theirs = (item_scores(logits, items, label_set) for logits in (reduced, unreduced))
        same.append(ours.top1 == theirs.top1)
        divergence.append(kl_divergence(theirs, ours))
    result = {s.name: _agreement(s.name, a, d) for s, a, d in zip(sets, same, divergence, strict=True)}
    if len(sets) > 1:
        result["joint"] = _agreement("joint", torch.stack(same).all(dim=0), torch.stack(divergence).sum(dim=0))
    return result


def kl_divergence(reference: ItemScores, other: ItemScores) -> Tensor:
    """KL(reference || other) of each item in nats, (I,) float64, at least 0.

    Raises:
        ValueError: other items.
    """
    if reference.items != other.items:
        raise ValueError("KL divergence needs the same items in the same order on both sides")
    p, q = reference.log_probabilities, other.log_probabilities
    terms = p.exp() * (p - q)
    # Not negative by Gibbs' inequality; rounding alone can take it under 0.
    return terms.sum(dim=1).clamp_min(0.0)


def feature_distance(reduced: Tensor, unreduced: Tensor, items: Sequence[int]) -> Interval:
    """Relative L2 distance of the pooled features, ||reduced - unreduced|| / ||unreduced||, mean over items.

    Args:
        reduced: (V, C) pooled features of the reduced model; unreduced: of the unreduced one. The views of an item
            are averaged first.
        items: the item of each view.
    Returns:
        The mean with a 95 % bootstrap interval; 0 = identical, about 1.4 = unrelated features of the same length.
    Raises:
        ValueError: other shapes, or features of the unreduced model that are all zero.
    """
    _same_shape(reduced, unreduced, "features")
    ours, _ = mean_over_views(reduced, items)
    theirs, order = mean_over_views(unreduced, items)
    length = theirs.norm(dim=1)
    if bool((length == 0).any()):
        zero = order[int((length == 0).nonzero()[0])]
        raise ValueError(f"the unreduced features of item {zero} are all zero: a relative distance is not defined")
    return bootstrap(((ours - theirs).norm(dim=1) / length).numpy())


def _agreement(name: str, same: Tensor, divergence: Tensor) -> Agreement:
    return Agreement(name, wilson(int(same.sum()), same.numel()), bootstrap(divergence.numpy()))


def _same_shape(reduced: Tensor, unreduced: Tensor, what: str) -> None:
    if reduced.ndim != 2 or reduced.shape != unreduced.shape:
        raise ValueError(
            f"{what} of both models must have one shape (V, C), got {tuple(reduced.shape)} and {tuple(unreduced.shape)}"
        )
