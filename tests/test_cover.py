"""Which token stands on each place: nearest in its frame, through any chain of reductions, from stage to stage."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tokred.cover
from tokred.advance import advance
from tokred.cover import Cover, Pool, ancestors, halved_places, nearest
from tokred.reduction import Fuse, Keep, Merge, Mix, Reduction
from tokred.schedule import ScheduleError
from tokred.tokens import Grid, Tokens

WINDOW = (2, 3, 3)
grids = st.builds(Grid, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
seeds = st.integers(0, 10**6)


def slowly(owner: list[int], grid: Grid) -> list[int]:
    """``nearest`` for one sample, place by place."""
    n = grid.per_frame
    found = []
    for place in range(grid.patches):
        frame, own = divmod(place, n)
        row, column = divmod(own, grid.w)
        owned = [t for t in range(grid.t) if any(o >= 0 for o in owner[t * n : (t + 1) * n])]
        closest = min(owned, key=lambda t: (abs(t - frame), t))
        candidates = [
            ((p // grid.w - row) ** 2 + (p % grid.w - column) ** 2, p) for p in range(n) if owner[closest * n + p] >= 0
        ]
        found.append(owner[closest * n + min(candidates)[1]])
    return found


def drawn(seed: int, grid: Grid, batch: int, empty: float) -> Tensor:
    """Random owners of the places, some dropped, whole frames among them; one place at least is owned."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(-4, 9, (batch, grid.t, grid.per_frame), generator=generator).clamp_min(-1)
    owner[torch.rand(batch, grid.t, generator=generator) < empty] = -1
    owner[:, -1, -1] = 3
    return owner.flatten(1)


@given(seeds, grids, st.integers(1, 3), st.sampled_from([0.0, 0.4, 0.9]))
def test_the_nearest_owned_place_of_the_frame_or_of_the_nearest_frame(
    seed: int, grid: Grid, batch: int, empty: float
) -> None:
    owner = drawn(seed, grid, batch, empty)
    assert nearest(owner, grid).tolist() == [slowly(sample, grid) for sample in owner.tolist()]


@given(seeds, grids, st.integers(1, 3))
def test_the_form_for_graphs_and_small_blocks_of_places_find_the_same(seed: int, grid: Grid, batch: int) -> None:
    owner = drawn(seed, grid, batch, 0.3)
    found = nearest(owner, grid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokred.cover, "BLOCK_BYTES", 1)
        assert torch.equal(nearest(owner, grid), found)
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert torch.equal(nearest(owner, grid), found)
        patch.setattr(tokred.cover, "BLOCK_BYTES", 1 << 20)
        assert torch.equal(nearest(owner, grid), found)


def test_ties_go_to_the_lower_raster_index_and_the_earlier_frame() -> None:
    row = torch.tensor([[7, -1, 8]])
    assert nearest(row, Grid(1, 1, 3)).tolist() == [[7, 7, 8]]
    square = torch.tensor([[-1, 1, -1, 2, -1, 3, -1, 4, -1]])
    assert nearest(square, Grid(1, 3, 3)).tolist() == [[1, 1, 1, 2, 1, 3, 2, 4, 3]]
    frames = torch.tensor([[5, -1, -1, -1, -1, 6]])
    assert nearest(frames, Grid(3, 1, 2)).tolist() == [[5, 5, 5, 5, 6, 6]]


def test_a_frame_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame of 400 x 400 places is too large: allowed is about 150 per side"):
        nearest(torch.zeros(1, 160_000, dtype=torch.int64), Grid(1, 400, 400))


def fresh(grid: Grid, batch: int) -> Tokens:
    x = torch.arange(batch * grid.patches * 1.0).view(batch, grid.patches, 1)
    source = torch.arange(grid.patches).expand(batch, -1)
    return Tokens(x, grid, groups=grid.t, source=source, cover=Cover.whole(grid, batch, x.device, WINDOW))


def some_keep(generator: torch.Generator, batch: int, n: int) -> Keep:
    left = int(torch.randint(1, n + 1, (), generator=generator))
    return Keep(torch.rand(batch, n, generator=generator).argsort(1)[:, :left], n)


def some_merge(generator: torch.Generator, batch: int, n: int) -> Merge:
    left = int(torch.randint(1, n + 1, (), generator=generator))
    assign = torch.randint(0, left, (batch, n), generator=generator)
    order = torch.rand(batch, n, generator=generator).argsort(1)
    return Merge(assign.scatter(1, order[:, :left], torch.arange(left).expand(batch, -1)), left)


def some_fuse(generator: torch.Generator, batch: int, n: int) -> Reduction:
    left = int(torch.randint(1, n, (), generator=generator)) if n > 1 else 1
    index = torch.rand(batch, n, generator=generator).argsort(1)[:, :left]
    if left == n:
        return Keep(index, n)
    return Fuse(index, torch.ones(batch, n).scatter(1, index, 0.0))


MADE = {"keep": some_keep, "merge": some_merge, "fuse": some_fuse}


@given(seeds, grids, st.integers(1, 3), st.lists(st.sampled_from(sorted(MADE)), min_size=1, max_size=3))
def test_a_cover_follows_any_chain_of_reductions(seed: int, grid: Grid, batch: int, kinds: list[str]) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = fresh(grid, batch)
    went = torch.arange(grid.patches).expand(batch, -1).tolist()
    only_kept = True
    for kind in kinds:
        reduction = MADE[kind](generator, batch, tokens.count)
        only_kept &= isinstance(reduction, Keep)
        positions = reduction.positions().tolist()
        went = [[-1 if at < 0 else row[at] for at in sample] for sample, row in zip(went, positions, strict=True)]
        tokens = advance(tokens, reduction)
    cover = tokens.cover
    assert cover is not None
    assert tokens.source is not None
    assert not cover.complete
    assert cover.owner.tolist() == went == tokens.source.tolist()
    assert cover.fill.tolist() == [slowly(sample, grid) for sample in went]
    assert (cover.home is not None) == only_kept
    if cover.home is not None:
        # A kept token's value is the number of the place that it came from.
        assert torch.equal(cover.home + torch.arange(batch)[:, None] * grid.patches, tokens.x[..., 0].long())


def test_a_token_that_carried_several_places_has_no_home_after_a_keep() -> None:
    merged = advance(fresh(Grid(1, 1, 4), 1), Merge(torch.tensor([[0, 0, 1, 2]]), 3))
    kept = advance(merged, Keep(torch.tensor([[0, 2]]), 3))
    assert kept.cover is not None
    assert kept.cover.home is None
    assert kept.cover.owner.tolist() == [[0, 0, -1, 1]]
    assert kept.cover.fill.tolist() == [[0, 0, 0, 1]]


def test_keeping_everything_in_another_order_is_not_the_complete_grid() -> None:
    turned = advance(fresh(Grid(1, 1, 3), 1), Keep(torch.tensor([[2, 0, 1]]), 3)).cover
    assert turned is not None
    assert not turned.complete
    assert turned.fill.tolist() == [[1, 2, 0]]
    assert turned.home is not None
    assert turned.home.tolist() == [[2, 0, 1]]


def test_a_soft_assignment_has_no_places() -> None:
    mix: Any = Mix(torch.full((1, 2, 4), 0.25))
    with pytest.raises(ScheduleError, match=r"a soft assignment \(Mix\) has no places on a grid.*Keep, Merge, Fuse"):
        advance(fresh(Grid(1, 2, 2), 1), mix)


@given(seeds, grids, st.integers(1, 2), st.booleans())
def test_pooling_is_the_mean_over_the_places_that_exist(seed: int, grid: Grid, batch: int, whole: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = fresh(grid, batch)
    if not whole:
        tokens = advance(tokens, some_keep(generator, batch, tokens.count))
    assert tokens.cover is not None
    pool = Pool(tokens.cover, tokens.count, grid.t)
    x = torch.randn(batch, tokens.count, 3, generator=generator)
    found = pool.apply(x)
    small = Grid(grid.t, -(-grid.h // 2), -(-grid.w // 2))
    assert found.shape == (batch, small.patches, 3)
    assert pool.n_out == small.patches
    groups = halved_places(grid).tolist()
    for b in range(batch):
        for group in range(small.patches):
            members = [p for p in range(grid.patches) if groups[p] == group]
            wanted = x[b, [int(tokens.cover.fill[b, p]) for p in members]].mean(0)
            torch.testing.assert_close(found[b, group], wanted)
    places = [int(p) for p in pool.positions()[0]]
    owned = tokens.cover.owner[0].tolist()
    assert places == [groups[owned.index(i)] for i in range(tokens.count)]
    assert torch.equal(pool.restore(found), found.gather(1, pool.positions()[..., None].expand(-1, -1, 3)))


def test_halving_sends_each_place_to_its_group_of_two_by_two() -> None:
    assert halved_places(Grid(2, 3, 3)).tolist() == [0, 0, 1, 0, 0, 1, 2, 2, 3, 4, 4, 5, 4, 4, 5, 6, 6, 7]
    assert ancestors(Grid(1, 5, 3), Grid(1, 5, 3)).tolist() == list(range(15))
    twice = halved_places(Grid(1, 3, 2))[halved_places(Grid(1, 5, 3))]
    assert torch.equal(ancestors(Grid(1, 5, 3), Grid(1, 2, 1)), twice)
    with pytest.raises(ValueError, match=r"\(1, 4, 4\) is not a halving of the input's grid"):
        ancestors(Grid(1, 5, 3), Grid(1, 4, 4))
