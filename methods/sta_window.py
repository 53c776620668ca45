"""STA with an equal number of tokens dropped in every window: ours, for backbones with window attention.

STA's score (Ding et al., ICCV 2023) drops where it wants, so windows keep different numbers of tokens and attention
becomes ragged. Here the tokens of every frame compete only inside their *cell*, the places that share both their plain
and their shifted window. Every window, plain or shifted, then keeps the same number of tokens in every frame.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import torch
from torch import Tensor

from tokred.accumulation import Choose
from tokred.backbones.geometry import Geometry
from tokred.methods.sta import STA, Window
from tokred.ranking import ranking
from tokred.reducer import Promise, Site
from tokred.registry import register
from tokred.schedule import ScheduleError, Step
from tokred.tokens import Grid, Tokens


@register("sta_window")
class STAWindow(STA):
    """STA whose drops are the same in every attention window, so that windows stay dense.

    Args:
        r: tokens dropped per frame at the first stage, or one number per stage; rounded down to a multiple of the
            windows of a frame.
        at, schedule, order, similarity, score, seed: as in STA.
        first: how the first frame is thinned, inside each cell: "tome" or "random".
        shifted: also equal in the shifted windows; False balances plain windows only and leaves the choice freer.
    """

    def __init__(
        self,
        r: int | tuple[int, ...] = 0,
        *,
        at: str | tuple[int, ...] = "thirds",
        schedule: str | float = "decreasing",
        order: str = "FBF",
        similarity: str = "key",
        score: str = "both",
        first: str = "tome",
        seed: int = 0,
        shifted: bool = True,
    ) -> None:
        super().__init__(
            r, at=at, schedule=schedule, order=order, similarity=similarity, score=score, first=first, seed=seed
        )
        if first not in ("tome", "random"):
            raise ScheduleError(f"first = {first!r} is not one of tome, random")
        self.shifted = shifted

    def check(self, geometry: Geometry) -> list[str]:
        self._need_windows(geometry)
        return super().check(geometry)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        self._need_windows(geometry)
        if count != geometry.grid.patches:
            raise ScheduleError(
                f"{self.spec} at block {step.block} needs a whole grid of {geometry.grid.patches} tokens, there are "
                f"{count}: allowed are the last blocks of stages, once each"
            )
        return super().promise(step, count, groups, geometry)

    def _need_windows(self, geometry: Geometry) -> None:
        if not geometry.stages:
            raise ScheduleError(f"{self.spec} needs a backbone with window attention: on others it would be sta")

    def _rounded(self, r: int, grid: Grid, window: Window) -> int:
        return r - r % _windows(grid, window)

    def _choose(self, tokens: Tokens, r: int, site: Site) -> Choose:
        assert tokens.cover is not None
        cells, drops = cells_of(tokens.grid, tokens.cover.window, r, self.shifted)
        places = torch.tensor(cells, device=tokens.x.device)
        return partial(_lowest_per_cell, cells=places, stay=_staying(cells, drops))


def _lowest_per_cell(score: Tensor, count: int, *, cells: Tensor, stay: tuple[int, ...]) -> Tensor:
    """Positions of the lowest scores of every cell: (B, g) -> (B, count), cell by cell; stay: see ``_staying``."""
    g = score.shape[1]
    rank = ranking(score, 1).argsort(dim=1)
    ordered = (cells * g + rank).argsort(dim=1)  # cell by cell, the lowest first
    return ordered[:, torch.tensor(stay, device=score.device)]


def _staying(cells: tuple[int, ...], drops: tuple[int, ...]) -> tuple[int, ...]:
    """Which ranks stay when places are ordered cell by cell: the first of each cell, but for its drops."""
    stay: list[int] = []
    first = 0
    for cell, drop in enumerate(drops):
        size = cells.count(cell)
        stay += range(first, first + size - drop)
        first += size
    return tuple(stay)


@lru_cache(maxsize=64)
def cells_of(grid: Grid, window: Window, r: int, shifted: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The cells of a frame, and how many tokens each drops.

    Args:
        grid: places; window: lengths before clipping; r: tokens to drop per frame; shifted: whether places of one cell
            also share their shifted window.
    Returns:
        Cell of each place, H * W of them, and per cell its share of r by area: largest remainders, and among equal ones
        the same part of every window first, so that equal windows drop equally.
    """
    rows, columns = (_parts(grid[axis], window[axis], shifted) for axis in (1, 2))
    # A cell is named by its window and by its part of the window, for rows and columns.
    names = [(row, column) for row in rows for column in columns]
    known = sorted(set(names))
    number = {name: i for i, name in enumerate(known)}
    cells = tuple(number[name] for name in names)
    areas = [cells.count(cell) for cell in range(len(known))]
    shares = [r * area / len(names) for area in areas]
    drops = [int(share) for share in shares]

    def priority(cell: int) -> tuple[float, int, int, int]:
        (_, row), (_, column) = known[cell]
        return (-round(shares[cell] - drops[cell], 9), row, column, cell)

    for cell in sorted(range(len(known)), key=priority)[: r - sum(drops)]:
        drops[cell] += 1
    return cells, tuple(drops)


def _parts(length: int, window: int, shifted: bool) -> list[tuple[int, int]]:
    """Window and part of the window of each place along an axis."""
    size = min(length, window)
    cut = size // 2 if shifted and length > window else 0
    return [(place // size, int(place % size >= cut) if cut else 0) for place in range(length)]


def _windows(grid: Grid, window: Window) -> int:
    """Windows of one frame."""
    return math.prod([math.ceil(length / min(length, size)) for length, size in zip(grid[1:], window[1:], strict=True)])
