"""Pictures as a source of clips of one frame, for image models."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tokred.data.batching import ViewBatches
from tokred.data.parts import check_part
from tokred.data.pictures.collection import PictureError, Pictures
from tokred.data.source import Batch, Failure, LabelSet
from tokred.data.videos import SHORT
from tokred.data.views import Views


class PictureSource(ViewBatches):
    """Pictures resized, cropped and normalised, one clip of one frame for each crop.

    A picture that cannot be used is added to ``failures`` and gives no row; the others keep their index.

    Args:
        pictures: what to show.
        views: which pixels, and their normalisation.
    """

    def __init__(self, pictures: Pictures, views: Views) -> None:
        self.pictures, self.views, self.name = pictures, views, pictures.name
        self.label_sets: tuple[LabelSet, ...] = pictures.label_sets
        self.failures: list[Failure] = []
        self.notes: list[str] = list(pictures.notes)
        self._failed: set[int] = set()
        self._digest: str | None = None

    @property
    def total(self) -> int:
        return len(self.pictures)

    def within(self, items: range) -> PictureSource:
        """Only these pictures; see ``Divisible``."""
        part = copy.copy(self)
        part.only = check_part(items, self.total)
        part.failures, part.notes, part._failed, part._digest = [], list(self.notes), set(), None
        return part

    def digest(self) -> str:
        """Short hash of the pictures' contents, their order and labels, and what is made of them."""
        if self._digest is None:
            total = hashlib.sha256(self.settings().encode())
            for index in self._sources:
                total.update(f"{self.pictures.sha256(index)}\n".encode())
            self._digest = total.hexdigest()[:SHORT]
        return self._digest

    @property
    def _sources(self) -> range:
        """The pictures that the clips are made of."""
        return self.items

    def settings(self) -> str:
        """What is made of the pictures, as text for the digest."""
        return repr(self.views)

    def item(self, index: int) -> list[Tensor]:
        """The views (3, T, H, W) uint8 of one picture; none if it failed, now or before."""
        if index in self._failed:
            return []
        try:
            return self.clips(index)
        except PictureError as error:
            self._failed.add(index)
            self.failures.append(Failure(self.pictures.names[index], str(error)))
            return []

    def clips(self, index: int) -> list[Tensor]:
        """The views of a picture that can be used.

        Raises:
            PictureError: it cannot.
        """
        return self.views.cut(self.views.resize(self.pictures.pixels(index))[None])

    def labels(self, index: int) -> Sequence[int]:
        """Class number in each label set."""
        return [self.pictures.labels[index]] if self.pictures.classes else []

    def _batch(self, rows: list[tuple[int, Tensor]]) -> Batch:
        items = [index for index, _ in rows]
        numbers = [self.labels(index) for index in items]
        labels = {
            label_set.name: torch.tensor([row[place] for row in numbers])
            for place, label_set in enumerate(self.label_sets)
        }
        return Batch(torch.stack([view for _, view in rows]), items, labels, [self.pictures.names[i] for i in items])
