"""Reducers that first choose whole frames and then one square in each: what STTS and its stand-ins share.

The survivors are a rectangle of T' x a x b tokens, so frames, grid and order stay: a host with windows runs on that
smaller grid, with kept frames and squares side by side, as the official code does.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokred.advance import advance
from tokred.anchors import Anchors, side
from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.ranking import ranking
from tokred.reducer import Promise, Site, Strength, TokenReducer, keep_patches, ranked_first
from tokred.reduction import Keep, Reduction
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Grid, Tokens

FRAMES_SHARE = 2 / 3
"""Exponent of ``keep`` that falls to the frames: the published MViT configurations lie between 0.66 and 0.77."""


@dataclass(frozen=True)
class CutStep(Step):
    """A step of one stage or of both: ``time`` is the share of the frames that stay, ``space`` that of a frame's
    tokens, 1 where a stage does not act; ``amount`` is their product."""

    time: float = 1.0
    space: float = 1.0


class FramesThenSquares(TokenReducer):
    """Base: sizes, schedule and promises of the two stages. A subclass says which frames and which squares.

    Args:
        keep: share of all tokens that both stages leave together; frames get keep^(2/3), squares keep^(1/3), each
            rounded to whole frames and rows; on hosts with windows frames give all of it, see ``shares``. What one
            last frame cannot give (an image has one) the squares do.
        time, space: instead of keep, the share of frames and of each frame's tokens, rounded down as in the official
            code: int(time * T) frames, squares of side int(sqrt(int(space * H * W))). One that is not given is 1.
        time_at: block before which frames go (0-based).
        space_at: block before which squares are cut; default a quarter of the depth, on a hierarchical host the first
            block of the second stage, and never before ``time_at``.
    """

    site = "before_block"
    strength = "keep"

    def __init__(
        self, keep: float, time: float | None, space: float | None, time_at: int, space_at: int | None
    ) -> None:
        for name, share in (("keep", keep), ("time", time), ("space", space)):
            if share is not None and not 0 < share <= 1:
                raise ScheduleError(f"{name} = {share:g} is not in (0, 1]")
        fixed = time is not None or space is not None
        if fixed and keep != 1.0:
            raise ScheduleError(
                f"give keep, or time and space, not both: keep = {keep}, time = {time}, space = {space}"
            )
        super().__init__(Schedule(at=(time_at,), keep=keep))
        if fixed:
            self.strength = ""  # type: ignore[misc]
        self.keep = keep
        self.time = time
        self.space = space
        self.time_at = time_at
        self.space_at = space_at

    @abstractmethod
    def choose_frames(self, tokens: Tokens, left: int, site: Site) -> Reduction:
        """Frames to keep, of whole frames.

        Args:
            left: how many, fewer than there are.
        """

    @abstractmethod
    def choose_squares(self, tokens: Tokens, anchors: Anchors, site: Site) -> Reduction:
        """One square in each of the ``tokens.groups`` whole frames.

        Args:
            anchors: the squares to choose from, smaller than a frame.
        """

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        step = site.step
        groups = self._whole(step, tokens.patch_count, tokens.groups, tokens.grid)
        frames, rows, columns = self.left(step, tokens.grid, groups)
        first: Reduction | None = None
        if frames < groups:
            first = self.choose_frames(tokens, frames, site)
        _, h, w = tokens.grid
        if (rows, columns) == (h, w):
            return first
        if first is not None:
            tokens = advance(tokens, first)
        second = self.choose_squares(tokens, Anchors(h, w, rows, columns), site)
        return second if first is None else self.chain(first, second)

    def chain(self, first: Reduction, second: Reduction) -> Reduction:
        """Both stages before one block, as one reduction."""
        if not (isinstance(first, Keep) and isinstance(second, Keep)):
            raise TypeError(f"{type(first).__name__} and {type(second).__name__} are not two subsets")
        return Keep(first.index.gather(1, second.index), first.n_in, second.groups, second.grid)

    def steps(self, geometry: Geometry) -> dict[int, Step]:
        time_at, space_at = self.starts(geometry)
        time, space = self.shares(geometry)
        cuts = {time_at: (time, 1.0), space_at: (1.0, space)}
        if time_at == space_at:
            cuts = {time_at: (time, space)}
        acting = [(block, *shares) for block, shares in cuts.items() if min(shares) < 1]
        return {block: CutStep(block, i, "keep", t * s, t, s) for i, (block, t, s) in enumerate(acting)}

    def starts(self, geometry: Geometry) -> tuple[int, int]:
        """Block of the temporal and of the spatial stage.

        Raises:
            ScheduleError: a block that the backbone does not have, or squares before frames.
        """
        entries = [block + 1 for block in range(geometry.depth) if geometry.ends_stage(block)]
        default = entries[0] if entries else geometry.depth // 4
        space_at = max(default, self.time_at) if self.space_at is None else self.space_at
        for name, block in (("time_at", self.time_at), ("space_at", space_at)):
            if not 0 <= block < geometry.depth:
                raise ScheduleError(f"{name} = {block} is not in 0..{geometry.depth - 1}")
        if space_at < self.time_at:
            raise ScheduleError(f"space_at = {space_at} is before time_at = {self.time_at}: frames go first")
        return self.time_at, space_at

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        now = self._whole(step, count, groups, geometry.grid)
        left = Grid(*self.left(step, geometry.grid, now))
        return Promise(left.patches, left.t, grid=left if geometry.stages else None)

    def describe(self, geometry: Geometry) -> list[str]:
        space_at = self.starts(geometry)[1]
        t, h, w = grid = geometry.stage_grid(geometry.stage_of(space_at))
        frames, rows, columns = self.extents(grid, *self.shares(geometry))
        parts = [f"{frames} of {t} frames"] if frames < t else []
        if (rows, columns) != (h, w):
            anchors = Anchors(h, w, rows, columns)
            parts.append(f"one of {anchors.count} squares of {rows} x {columns} in each frame of {h} x {w}")
        return [", then ".join(parts)] if parts else []

    def strength_range(self, geometry: Geometry) -> Strength:
        """keep from 1 down to one token of the clip."""
        if not self.strength:
            raise ScheduleError(f"{self.spec} has no strength to solve for: its time and space are given")
        return Strength("keep", 1.0, 1.0 / geometry.grid.patches, whole=False)

    def shares(self, geometry: Geometry) -> tuple[float, float]:
        """Share of the frames and share of each frame's tokens that stay, before rounding.

        Hosts with windows know relative places alone, and squares come to lie side by side: a square that follows what
        moves takes its motion away. ``keep`` therefore cuts none there, as in the published settings.
        """
        if self.time is not None or self.space is not None:
            return self.time or 1.0, self.space or 1.0
        time = max(self.keep if geometry.stages else self.keep**FRAMES_SHARE, 1 / geometry.grid.t)
        return time, self.keep / time

    def extents(self, grid: Grid, time: float, space: float) -> tuple[int, int, int]:
        """Frames, rows and columns that stay of a whole grid.

        Args:
            time: share of the frames; space: share of each frame's tokens.
        Raises:
            ScheduleError: the share leaves nothing.
        """
        if self.strength:
            rows, columns = (_nearest(length * math.sqrt(space)) for length in grid[1:])
            return _nearest(grid.t * time), rows, columns
        frames, rows, columns = int(grid.t * time), side(grid.h, space), side(grid.w, space)
        if frames < 1:
            raise ScheduleError(f"time = {time:g} leaves none of {grid.t} frames: allowed is {1 / grid.t:.3g}..1")
        if rows < 1 or columns < 1:
            least = 1 / min(grid.h, grid.w) ** 2
            raise ScheduleError(f"space = {space:g} leaves none of {grid.h} x {grid.w}: allowed is {least:.3g}..1")
        return frames, rows, columns

    def left(self, step: Step, grid: Grid, groups: int) -> tuple[int, int, int]:
        """Frames, rows and columns that a step leaves of so many whole frames."""
        if not isinstance(step, CutStep):
            raise TypeError(f"{step} was not made by {self.spec}")
        frames, rows, columns = self.extents(grid, step.time, step.space)
        return (min(frames, groups) if step.time < 1 else groups), rows, columns

    def _whole(self, step: Step, count: int, groups: int | None, grid: Grid) -> int:
        """Number of frames, each of which must still be whole."""
        if groups is None or count != groups * grid.per_frame:
            raise ScheduleError(
                f"{self.spec} at block {step.block} needs whole frames of {grid.h} x {grid.w}; {count} tokens are "
                f"in {groups or 'no'} groups: an earlier step took some out of the frames"
            )
        return groups


def keep_frames(tokens: Tokens, frames: Tensor) -> Keep:
    """Keep whole frames: their numbers (B, k), rising."""
    assert tokens.groups is not None
    size = tokens.patch_count // tokens.groups
    inside = torch.arange(size, device=frames.device)
    index = (frames[..., None] * size + inside).flatten(1)
    kept = keep_patches(tokens, index, groups=frames.shape[1])
    return replace(kept, grid=tokens.grid._replace(t=frames.shape[1]))


def keep_squares(tokens: Tokens, anchors: Anchors, chosen: Tensor) -> Keep:
    """Keep one square of each frame: its number (B, T), in reading order of the anchors."""
    groups = chosen.shape[1]
    places = anchors.places(chosen.device)[chosen]  # (B, T, a * b)
    start = torch.arange(groups, device=chosen.device).mul_(tokens.patch_count // groups)[:, None]
    kept = keep_patches(tokens, (places + start).flatten(1), groups=groups)
    return replace(kept, grid=Grid(groups, anchors.rows, anchors.columns))


def best(scores: Tensor, count: int) -> Tensor:
    """The places of the ``count`` highest scores in each row (R, M), rising: (R, count). Ties go to the earlier one
    (official: the implementation's choice); NaN ranks highest, so that it shows in the logits."""
    return ranking(ranked_first(scores), descending=True)[:, :count].sort(dim=-1).values


def _nearest(length: float) -> int:
    return max(1, math.floor(length + 0.5))
