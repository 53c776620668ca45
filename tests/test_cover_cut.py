"""A smaller grid cut out of a whole one: nothing is filled up, and patches are still traced."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokred.advance import advance
from tokred.cover import Cover
from tokred.reduction import Keep
from tokred.tokens import Grid, Tokens

WINDOW = (2, 2, 2)
WHOLE = Grid(3, 4, 4)


def tokens(traced: bool) -> Tokens:
    x = torch.arange(48.0).reshape(1, 48, 1)
    source = torch.arange(48)[None] if traced else None
    return Tokens(x, WHOLE, groups=3, source=source, cover=Cover.whole(WHOLE, 1, x.device, WINDOW))


def last_frames() -> Keep:
    return Keep(torch.arange(16, 48)[None], 48, 2, Grid(2, 4, 4))


def test_tokens_of_a_cut_stand_on_the_smaller_grid() -> None:
    after = advance(tokens(traced=True), last_frames())
    assert after.grid == Grid(2, 4, 4)
    assert after.cover is not None
    assert after.cover.complete
    assert after.cover.grid == after.grid
    assert after.cover.fill.tolist() == [list(range(32))]
    assert after.cover.window == WINDOW
    assert after.source is not None
    assert after.source[0].tolist() == [-1] * 16 + list(range(32))


def test_patches_are_traced_through_the_next_stage() -> None:
    cut = advance(tokens(traced=True), last_frames()).cover
    assert cut is not None
    merged = cut.halved((1, 1, 1))
    assert (merged.grid, merged.window, merged.complete) == (Grid(2, 2, 2), (1, 1, 1), True)
    expected = [-1] * 16 + [t * 4 + y // 2 * 2 + x // 2 for t in range(2) for y in range(4) for x in range(4)]
    assert merged.carriers()[0].tolist() == expected


def test_without_a_cut_every_patch_is_carried_by_where_it_lies() -> None:
    merged = tokens(traced=False).cover
    assert merged is not None
    places = merged.halved(WINDOW).carriers()
    assert places[0].tolist() == [t * 4 + y // 2 * 2 + x // 2 for t in range(3) for y in range(4) for x in range(4)]


def test_a_host_without_a_cover_keeps_its_grid() -> None:
    flat = replace(tokens(traced=True), cover=None)
    assert advance(flat, last_frames()).grid == WHOLE


def test_a_grid_with_holes_cannot_be_cut() -> None:
    holes = advance(tokens(traced=False), Keep(torch.arange(0, 48, 2)[None], 48, 3))
    with pytest.raises(ValueError, match=r"a grid of \(1, 2, 4\) can only be cut out of a whole one"):
        advance(holes, Keep(torch.arange(8)[None], 24, 1, Grid(1, 2, 4)))
