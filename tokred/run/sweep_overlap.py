"""Do the points of a sweep keep the same patches, merge the same ones, and find the same clips hard?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tokred.measure.accuracy import labels_of_items
from tokred.measure.overlap import kept_iou, merge_rand
from tokred.measure.views import item_scores
from tokred.run.cell import PREDICT
from tokred.run.evaluate import Arrays, Predictions
from tokred.run.grid import SEED
from tokred.run.sweep_plan import Group, PlannedCell, SweepPlan
from tokred.run.sweep_words import words

CARRIED, SOURCE = "carried", "source"
HARD, KEPT = "probability of the right answer", "patches kept"
FEWEST = 3
"""Clips that a rank correlation needs."""

Floats = NDArray[np.float64]
Answers = Callable[[str | None], Predictions | None]


@dataclass
class _Kept:
    """What one point carries, by the digest of the clips: (V, P) sources, how many clips these are, and by what they
    are ranked."""

    sources: dict[str, NDArray[Any]] = field(default_factory=dict)
    clips: dict[str, int] = field(default_factory=dict)
    ranks: dict[str, Floats] = field(default_factory=dict)


def ranked_by(plan: SweepPlan) -> str | None:
    """By what the clips are ranked: by the probability of the right answer where the sweep measures ``predict`` too,
    else by the number of patches that are kept; None where nothing is traced."""
    measures = {planned.cell.measure for planned in plan.cells if planned.cell is not None}
    if CARRIED not in measures:
        return None
    return HARD if PREDICT in measures else KEPT


def overlaps(
    plan: SweepPlan,
    predictions: Answers,
    arrays: Callable[[str | None], Arrays | None],
    axes: Sequence[Sequence[str]] = (),
    labels: str | None = None,
) -> list[dict[str, Any]]:
    """Every pair of points of which it is known which token carries each patch, on the same clips.

    Args:
        predictions, arrays: what a cell found, by its id; axes: the keys of each; labels: the label set that decides
            what a right answer is, None = right in all of them at once.
    Returns:
        ``a``, ``b``: names of the points; means over clips ``iou`` (patches that both carry of those that either
        does) and ``rand`` (adjusted Rand index of the merges); ``spearman`` and ``kendall`` over clips, see
        `ranked_by`; ``clips``: how many. Seeds are pooled. None where it cannot be said: other grids of patches, two
        points of which neither merges anything, a quantity that is the same for all clips, fewer than three clips.
    """
    found: dict[str, _Kept] = {}
    by = ranked_by(plan)
    answered = {
        (str(p.point.values), p.group.data): p.id
        for p in plan.cells
        if p.cell is not None and p.cell.measure == PREDICT and p.group is not None
    }
    for planned in plan.cells:
        if planned.cell is None or planned.group is None or planned.cell.measure != CARRIED:
            continue
        traced = arrays(planned.id)
        if traced is None or SOURCE not in traced:
            continue
        data = planned.group.data
        kept = found.setdefault(_name(planned, axes), _Kept())
        # A seed on the same clips would be no second sample; the first one stands for them.
        if data in kept.sources:
            continue
        kept.sources[data], kept.clips[data] = traced[SOURCE], len(np.unique(traced["items"]))
        if by == KEPT:
            kept.ranks[data] = (traced[SOURCE] >= 0).sum(axis=1).astype(np.float64)
        elif (answers := predictions(answered.get((str(planned.point.values), data)))) is not None:
            ranks = _surety(answers, planned.group, labels)
            if ranks is not None:
                kept.ranks[data] = ranks
    return [
        pair for (a, one), (b, other) in combinations(found.items(), 2) if (pair := _pair(a, one, b, other)) is not None
    ]


def _name(planned: PlannedCell, axes: Sequence[Sequence[str]]) -> str:
    return words({k: v for k, v in planned.point.values.items() if k != SEED}, axes)


def _merges(source: NDArray[Any]) -> bool:
    """Whether any token of any clip carries two patches."""
    ordered = np.sort(source, axis=1)
    return bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any())


def _pair(a: str, one: _Kept, b: str, other: _Kept) -> dict[str, Any] | None:
    shared = [data for data in one.sources if data in other.sources]
    if not shared:
        return None
    iou: Floats | None = None
    rand: Floats | None = None
    sides = [(one.sources[data], other.sources[data]) for data in shared]
    if all(x.shape == y.shape for x, y in sides):
        iou = np.concatenate([kept_iou(x, y) for x, y in sides])
        if any(_merges(x) or _merges(y) for x, y in sides):
            rand = np.concatenate([merge_rand(x, y) for x, y in sides])
    ranked = [data for data in shared if data in one.ranks and data in other.ranks]
    spearman, kendall = _ranks([one.ranks[data] for data in ranked], [other.ranks[data] for data in ranked])
    return {
        "a": a,
        "b": b,
        "iou": None if iou is None else float(iou.mean()),
        "rand": None if rand is None else float(rand.mean()),
        "spearman": spearman,
        "kendall": kendall,
        "clips": sum(one.clips[data] for data in shared),
    }


def _ranks(a: list[Floats], b: list[Floats]) -> tuple[float | None, float | None]:
    from scipy import stats

    if not a:
        return None, None
    x, y = np.concatenate(a), np.concatenate(b)
    if len(x) < FEWEST or not np.ptp(x) or not np.ptp(y):
        return None, None
    return float(stats.spearmanr(x, y).statistic), float(stats.kendalltau(x, y).statistic)


def _surety(answers: Predictions, group: Group, labels: str | None) -> Floats | None:
    """Log probability of the right answer of each item, all label sets taken as independent; None without labels."""
    items, logits = answers.items.tolist(), torch.from_numpy(answers.logits)
    # The printed numbers may be of another measure.
    wanted = {labels} & {label_set.name for label_set in group.label_sets}
    total: Floats | None = None
    for label_set in group.label_sets:
        if label_set.name not in answers.labels or (wanted and label_set.name not in wanted):
            continue
        scores = item_scores(logits, items, label_set)
        truth = labels_of_items(torch.from_numpy(answers.labels[label_set.name]), items, label_set)
        chosen = torch.tensor([truth[item] for item in scores.items])
        own = scores.log_probabilities.gather(1, chosen[:, None])[:, 0].numpy()
        total = own if total is None else total + own
    return total
