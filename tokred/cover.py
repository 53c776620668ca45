"""Which token stands on each place of a grid: what lets a host with windows or convolutions run on fewer tokens.

A host that needs whole grids gathers tokens by ``fill`` to get one, and brings results back by ``home``. Both follow
from the reductions alone, so they work for every method whose reductions say where each token went.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from tokred.gather import take
from tokred.reduction import Fill, Reduction
from tokred.tokens import Grid

FAR = 1 << 30
"""Larger than any squared distance times any number of places that fits."""

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Cover:
    """The tokens on the places of a grid.

    Args:
        grid: the places, in raster order, P of them.
        owner: (B, P) int64, the token that carries each place, -1 = dropped.
        fill: (B, P) int64, the token that stands on each place: its owner or, where it was dropped, the owner of the
            nearest place of the same frame that has one (squared Euclidean distance, ties to the lower raster index);
            of the nearest frame, ties to the earlier, where a frame has none.
        home: (B, M) int64, the one place of each token, or None where tokens carry several places.
        origin: the patch grid of the input, of which ``grid`` is a halving or itself.
        window: (frames, rows, columns) of the attention's windows on the grid, before clipping.
        complete: whether token i carries place i, for all i: nothing was reduced.
        traced: (B, P0) int64, the place of each patch of the input, -1 = on a part of the map that was cut off; None
            while nothing was cut off, or while nobody traces: then ``ancestors`` says it.
    """

    grid: Grid
    owner: Tensor
    fill: Tensor
    home: Tensor | None
    origin: Grid
    window: tuple[int, int, int]
    complete: bool = False
    traced: Tensor | None = None

    @staticmethod
    def whole(
        grid: Grid, batch: int, device: torch.device, window: tuple[int, int, int], origin: Grid | None = None
    ) -> Cover:
        """Every place has its own token."""
        places = torch.arange(grid.patches, device=device).expand(batch, -1)
        return Cover(grid, places, places, places, grid if origin is None else origin, window, complete=True)

    def moved(self, positions: Tensor, chosen: Tensor | None) -> Cover:
        """The cover after a reduction.

        Args:
            positions: (B, N) where each token went, -1 = dropped.
            chosen: (B, M) the token that each new one is, where new ones are a subset; else None.
        """
        if self.complete:
            owner, home = positions, chosen
        else:
            places = torch.nn.functional.pad(positions, (0, 1), value=-1)
            owner = places.gather(1, torch.where(self.owner < 0, positions.shape[1], self.owner))
            home = None if chosen is None or self.home is None else self.home.gather(1, chosen)
        return replace(self, owner=owner, fill=nearest(owner, self.grid), home=home, complete=False)

    def cut(self, grid: Grid, source: Tensor | None) -> Cover:
        """The cover of a smaller grid that tokens of a whole one fill: what is gone is not filled up again.

        Args:
            grid: the smaller grid; source: (B, P0) which token carries each patch of the input, where that is traced.
        Raises:
            ValueError: the grid was not whole.
        """
        if not self.complete:
            raise ValueError(
                f"a grid of {tuple(grid)} can only be cut out of a whole one: an earlier step dropped tokens"
            )
        whole = Cover.whole(grid, self.owner.shape[0], self.owner.device, self.window, self.origin)
        return replace(whole, traced=source)

    def halved(self, window: tuple[int, int, int]) -> Cover:
        """The whole cover of the next stage, behind 2 x 2 patch merging."""
        owner = self.owner
        after = Cover.whole(self.grid.halved, owner.shape[0], owner.device, window, self.origin)
        if self.traced is None:
            return after
        places = halved_places(self.grid).to(owner.device)
        return replace(after, traced=torch.where(self.traced < 0, -1, places[self.traced]))

    def carriers(self) -> Tensor:
        """Which place each patch of the input is on, (B, P0), -1 = cut off."""
        if self.traced is not None:
            return self.traced
        return ancestors(self.origin, self.grid).to(self.owner.device).expand(self.owner.shape[0], -1)


def nearest(owner: Tensor, grid: Grid) -> Tensor:
    """The owner of the nearest owned place, for every place; see ``Cover.fill``.

    Args:
        owner: (B, P) int64, -1 = none.
        grid: the places.
    Returns:
        (B, P) int64, never -1 as long as one place is owned.
    """
    b, n = owner.shape[0], grid.per_frame
    frames = owner.reshape(b * grid.t, n)
    keys = _keys(grid.h, grid.w).to(owner.device)  # (n, n): squared distance, then raster index
    penalty = torch.where(frames < 0, FAR, 0).to(torch.int32)
    near = _nearest_in_frame(frames, keys, penalty).reshape(b, grid.t, n)
    if grid.t == 1:
        return near[:, 0]
    time = torch.arange(grid.t, device=owner.device)
    gap = (time[:, None] - time).abs() * grid.t + time
    empty = (near[:, :, 0] < 0)[:, None]  # one place is as good as another: a frame has owners or it has none
    frame = torch.where(empty, FAR, gap).argmin(-1)  # (B, T)
    return near.gather(1, frame[..., None].expand_as(near)).flatten(1)


@dataclass(frozen=True)
class Pool(Reduction):
    """From the tokens of a grid to the 2 x 2 groups that patch merging makes: the mean over the places that exist.

    What a step after the last block of a stage sees of queries, keys and statistics, which live on the finished
    stage's grid.
    """

    cover: Cover
    n_in: int
    groups: int | None = None

    @property
    def n_out(self) -> int:  # type: ignore[override]
        return self.cover.grid.halved.patches

    def apply(self, x: Tensor, size: Tensor | None = None) -> Tensor:
        full = x if self.cover.complete else take(x, self.cover.fill)
        _, h, w = self.cover.grid
        maps = full.reshape(-1, h, w, x.shape[2]).permute(0, 3, 1, 2)
        # Padded places do not count: an odd last row is averaged over the members that exist.
        small = torch.nn.functional.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False)
        return small.permute(0, 2, 3, 1).reshape(x.shape[0], self.n_out, x.shape[2])

    def masses(self, size: Tensor | None) -> Tensor | None:
        return None

    def positions(self) -> Tensor:
        b = self.cover.owner.shape[0]
        groups = halved_places(self.cover.grid).to(self.cover.owner.device).expand(b, -1)
        owner = torch.where(self.cover.owner < 0, self.n_in, self.cover.owner)
        return groups.new_full((b, self.n_in + 1), -1).scatter(1, owner, groups)[:, :-1]

    def restore(self, y: Tensor, fill: Fill = None) -> Tensor:
        return take(y, self.positions())


@lru_cache(maxsize=32)
def ancestors(origin: Grid, grid: Grid) -> Tensor:
    """(P0,) place on ``grid`` of each patch of ``origin``, of which grid is a repeated halving."""
    places = torch.arange(origin.patches)
    while origin != grid:
        if origin.halved == origin:
            raise ValueError(f"{tuple(grid)} is not a halving of the input's grid")
        places, origin = halved_places(origin)[places], origin.halved
    return places


@lru_cache(maxsize=32)
def halved_places(grid: Grid) -> Tensor:
    """(P,) place on the halved grid of each place, both in raster order."""
    small = grid.halved
    t, row, column = torch.meshgrid(*(torch.arange(n) for n in grid), indexing="ij")
    return (t * small.per_frame + row // 2 * small.w + column // 2).flatten()


def _nearest_in_frame(frames: Tensor, keys: Tensor, penalty: Tensor) -> Tensor:
    """The owner of the nearest owned place of the same frame, (F, n), -1 where a frame has none."""
    n = frames.shape[1]
    step = max(1, BLOCK_BYTES // (4 * n))  # rows of distances that stay in the cache
    if frames.is_meta or torch.compiler.is_compiling():
        step = max(1, step // n)
        parts = [(keys + penalty[i : i + step, None]).amin(-1) for i in range(0, frames.shape[0], step)]
        return frames.gather(1, torch.cat(parts).long() % n)
    # Only dropped places need a neighbour.
    frame, place = (frames < 0).nonzero(as_tuple=True)
    found = [
        keys.index_select(0, place[i : i + step]).add_(penalty.index_select(0, frame[i : i + step])).amin(-1)
        for i in range(0, frame.shape[0], step)
    ]
    if not found:
        return frames
    return frames.index_put((frame, place), frames[frame, torch.cat(found).long() % n])


@lru_cache(maxsize=32)
def _keys(height: int, width: int) -> Tensor:
    """(n, n) int32: squared distance of two places of a frame, times n, plus the raster index of the second."""
    n = height * width
    if (height**2 + width**2) * n + n >= FAR:
        raise ValueError(f"a frame of {height} x {width} places is too large: allowed is about 150 per side")
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    distance = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    return (distance * n + torch.arange(n)).to(torch.int32)
