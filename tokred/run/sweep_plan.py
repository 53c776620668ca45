"""What a sweep will compute: points, cells with their ids and costs, and the data they are paired on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokred.data.source import LabelSet
from tokred.measure.flops import MacReport
from tokred.run.cell import Cell
from tokred.run.clips import ClipSettings
from tokred.run.grid import Point

__all__ = ["FullCost", "Group", "PlannedCell", "Point", "SweepPlan"]


@dataclass(frozen=True)
class Group:
    """A host on one set of clips: cells of one group are compared with each other.

    Args:
        backbone, checkpoint, num_classes, clips: as in ``Cell``.
        weights: digest of the host's weights; origin: where they come from, in words.
        data: digest of the clips; name: of the clips; items: how many; unit: "clip" or "image".
        label_sets: those that the model's answers can be scored on; tasks: what its logits are known to tell.
        gmac: of one unreduced clip, 1e9 multiply-adds; tokens: entering the first block; params: of the host.
        notes: of the host and the clips.
        absent: the weights or the clips are not there: digests are none, and cells have no name to be kept under.
    """

    backbone: str
    checkpoint: str | None
    num_classes: int | None
    clips: ClipSettings
    weights: str
    origin: str
    data: str
    name: str
    items: int
    unit: str
    label_sets: tuple[LabelSet, ...]
    tasks: tuple[LabelSet, ...]
    gmac: float
    tokens: int
    params: int
    notes: tuple[str, ...] = ()
    absent: bool = False


@dataclass(frozen=True)
class FullCost:
    """The cost of a point at full size, counted on shapes: nothing is run and no checkpoint is needed.

    Args:
        backbone: of the profile ``full``; reducer: full spec there (solved, where there is a budget).
        gmac: 1e9 multiply-adds of a clip; share: of the unreduced model; None where counts depend on the content.
        reason: why there is no number.
        values: the values of the point in the profile ``full``, axis key -> value, without a seed: printed rows may be
            named by them.
        num_classes: length of the logits there, None = that of the backbone.
    """

    backbone: str
    reducer: str
    gmac: float | None
    share: float | None
    reason: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    num_classes: int | None = None


@dataclass(frozen=True)
class PlannedCell:
    """One measure of one point; of a point that is left out, the point alone.

    Args:
        point: where in the grid; a shared unreduced cell has no values.
        cell, id, group: what is computed, under which name, with what it is compared; None where it is left out.
        baseline: id of the unreduced cell that it is paired with (its own, where it is that one).
        method: registered name; budget: share that it was solved for, None = settings as given.
        report: multiply-adds of a clip, None where the counts depend on the content; share: of the unreduced model.
        full: its cost at full size, None where there is no profile ``full``.
        notes: what must be shown with it.
        reducer: what it is besides its settings, from ``reducer_digest``.
        learned: whether the method has parameters; trained: whether they are trained, None where there are none.
    """

    point: Point
    cell: Cell | None = None
    id: str | None = None
    group: Group | None = None
    baseline: str | None = None
    method: str = ""
    budget: float | None = None
    report: MacReport | None = None
    share: float | None = None
    full: FullCost | None = None
    notes: tuple[str, ...] = ()
    learned: bool = False
    trained: bool | None = None
    reducer: str | None = None


@dataclass(frozen=True)
class SweepPlan:
    """All of a sweep before anything is computed.

    Args:
        profile: name of the profile.
        cells: every measure of every point in the order of the grid, those left out too. Two points may share a cell.
        baselines: the unreduced cells that these are paired with, each once, also where a point of the grid is one.
        notes: what holds for the whole sweep.
    """

    profile: str
    cells: tuple[PlannedCell, ...]
    baselines: tuple[PlannedCell, ...]
    notes: tuple[str, ...] = ()

    @property
    def wanted(self) -> dict[str, PlannedCell]:
        """Every cell to compute by its id, once, the unreduced ones first."""
        found: dict[str, PlannedCell] = {}
        for planned in (*self.baselines, *self.cells):
            if planned.id is not None:
                found.setdefault(planned.id, planned)
        return found
