"""From logits per view to probabilities per item, inside one label set.

V views (rows), I items (videos), K classes of the label set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.data.source import LabelSet


@dataclass(frozen=True)
class ItemScores:
    """Class probabilities of each item in one label set.

    Args:
        log_probabilities: (I, K) float64, of the mean probability over an item's views.
        items: the I items, in the order in which they first came.
    """

    log_probabilities: Tensor
    items: tuple[int, ...]

    @property
    def top1(self) -> Tensor:
        """Most probable class of each item, (I,) int64; the first one of equals."""
        best = self.log_probabilities.max(dim=1, keepdim=True).values
        # argmax promises no order among equals.
        return (self.log_probabilities == best).int().cumsum(dim=1).eq(0).sum(dim=1)


def whole(classes: int, name: str = "all") -> LabelSet:
    """One label set over all logits, for models whose classes are not divided."""
    return LabelSet(name, tuple(str(i) for i in range(classes)))


def logit_slice(logits: Tensor, label_set: LabelSet) -> Tensor:
    """The logits of one label set, (V, K) of (V, classes).

    Raises:
        ValueError: the label set does not lie inside the logits.
    """
    if logits.ndim != 2:
        raise ValueError(f"logits must be (V, classes), got shape {tuple(logits.shape)}")
    stop = label_set.offset + len(label_set.classes)
    if not label_set.classes or label_set.offset < 0 or stop > logits.shape[1]:
        raise ValueError(
            f"label set {label_set.name!r} covers logits {label_set.offset} to {stop - 1}, "
            f"the model has {logits.shape[1]} (0 to {logits.shape[1] - 1})"
        )
    return logits[:, label_set.offset : stop]


def item_scores(logits: Tensor, items: Sequence[int], label_set: LabelSet) -> ItemScores:
    """Softmax of each view inside the label set, then the mean over an item's views.

    Args:
        logits: (V, classes), any floating dtype.
        items: the item of each view; views of one item need not be neighbours.
        label_set: which logits compete.
    Raises:
        ValueError: other lengths, no view at all, or logits that are not finite.
    """
    scores = logit_slice(logits, label_set).detach().cpu().double()
    order, index = _group(items, scores.shape[0])
    finite = torch.isfinite(scores).all(dim=1)
    if not bool(finite.all()):
        bad = [items[i] for i in (~finite).nonzero().flatten().tolist()]
        raise ValueError(f"logits of {len(bad)} of {len(items)} views are not finite; first: item {bad[0]}")
    log_p = scores.log_softmax(dim=1)
    views = torch.bincount(index, minlength=len(order)).double()
    # log(mean(exp)) around each item's highest entry: probabilities under 1e-308 stay finite.
    top = torch.full((len(order), log_p.shape[1]), -torch.inf, dtype=torch.float64)
    top = top.scatter_reduce(0, index[:, None].expand_as(log_p), log_p, reduce="amax", include_self=True)
    total = torch.zeros_like(top).index_add(0, index, (log_p - top[index]).exp())
    return ItemScores(top + total.log() - views.log()[:, None], order)


def mean_over_views(values: Tensor, items: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Mean of the rows of each item, (V, C) to (I, C) float64, with the items in order of first appearance."""
    order, index = _group(items, values.shape[0])
    views = torch.bincount(index, minlength=len(order)).double()
    flat = values.detach().cpu().double()
    return torch.zeros(len(order), flat.shape[1], dtype=torch.float64).index_add(0, index, flat) / views[:, None], order


def _group(items: Sequence[int], rows: int) -> tuple[tuple[int, ...], Tensor]:
    if len(items) != rows:
        raise ValueError(f"{len(items)} items were given for {rows} rows; allowed: one item per row")
    if not items:
        raise ValueError("no views were given; at least one is needed")
    position: dict[int, int] = {}
    index = [position.setdefault(item, len(position)) for item in items]
    return tuple(position), torch.tensor(index)
