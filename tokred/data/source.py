"""What every source of clips offers to training and evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class LabelSet:
    """One classification task inside the logits.

    Args:
        name: how it is called in tables, e.g. "appearance".
        classes: class names.
        offset: index of its first class in the logits; classes are consecutive.
    """

    name: str
    classes: tuple[str, ...]
    offset: int = 0


@dataclass(frozen=True)
class Failure:
    """An item that could not be used: which, and why, in one line."""

    path: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Some clips, ready for the model.

    Args:
        clips: (B, 3, T, H, W) float32, normalised.
        items: index of the video that each row belongs to; rows of one item are its views.
        labels: label set name -> (B,) int64; empty without labels.
        names: one per row, for reports.
    """

    clips: Tensor
    items: list[int]
    labels: dict[str, Tensor] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)


class Source(Protocol):
    """A finite, seeded set of clips. Iterating twice gives the same batches."""

    name: str
    label_sets: tuple[LabelSet, ...]
    failures: list[Failure]
    notes: list[str]

    def __len__(self) -> int:
        """Number of items (videos)."""
        ...

    def digest(self) -> str:
        """Short hash of what the clips are made of (file contents or generator settings)."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The clips in a fixed order; items that fail are added to ``failures`` and never replaced."""
        ...


@runtime_checkable
class Divisible(Source, Protocol):
    """A source that can be opened in parts, so that several machines share one data set."""

    def within(self, items: range) -> Source:
        """Only these items, under their own numbers; the others are neither read nor generated.

        The part has failures and notes of its own. Its digest tells what the clips of these items are made of.
        """
        ...
