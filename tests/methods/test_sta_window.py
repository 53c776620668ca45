"""sta_window: every window, plain and shifted, keeps equally many tokens of every frame; apart from that it is STA."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.attach import attach
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.windows import window_layout
from tokred.compose import compose
from tokred.dry import dry_run
from tokred.methods import STA, STAWindow
from tokred.methods.sta_window import _lowest_per_cell, _staying, cells_of
from tokred.reduction import Keep
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid

VIDEO, *_, WINDOWS = default_backbones()
#: 56 rows of 4 pixels: 14 x 14 and 7 x 7 places behind the first stage and the second, as in VideoSwin's last stages.
EVEN: dict[str, Any] = {"img_size": 112, "frames": 4, "dim": 8, "depths": (1, 2, 1), "num_heads": (1, 2, 2)}


def kept_in_windows(index: torch.Tensor, grid: Grid, window: tuple[int, int, int], shifted: bool) -> list[set[int]]:
    """Per sample, how many tokens of a frame stay in the windows: all numbers that occur."""
    flat = Grid(1, grid.h, grid.w)
    layout = window_layout(flat, (1, *window[1:]), shifted)
    found = []
    for sample in index.view(len(index), grid.t, -1) % grid.per_frame:
        numbers: set[int] = set()
        for frame in sample:
            counts = Counter((layout.slot[frame] // layout.volume).tolist())
            numbers |= {counts.get(number, 0) for number in range(layout.count)}
        found.append(numbers)
    return found


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("r", [20, 52, 100])
@torch.no_grad()
def test_every_window_keeps_equally_many_tokens_of_every_frame(r: int, shifted: bool) -> None:
    torch.manual_seed(0)
    model = VideoSwin(**EVEN, window=(2, 7, 7), num_classes=3).eval()
    clips = torch.randn(2, 3, 4, 112, 112)
    run = attach(model, STAWindow(r=(r, 9), shifted=shifted)).run(clips, record=True)
    (_, first), (_, second) = run.steps
    assert isinstance(first, Keep)
    assert first.n_out == 2 * (196 - r)
    for sample in kept_in_windows(first.index, Grid(2, 14, 14), (2, 7, 7), False):
        assert sample == {(196 - r) // 4}
    if shifted:
        # A shifted grid is cut into the same windows, moved: the pieces of one that is rolled around count together.
        assert all(len(sample) == 1 for sample in kept_in_windows(first.index, Grid(2, 14, 14), (2, 7, 7), True))
    assert second.n_out == 2 * (49 - 9)


@torch.no_grad()
def test_stas_own_choice_is_not_equal() -> None:
    torch.manual_seed(0)
    model = VideoSwin(**EVEN, window=(2, 7, 7), num_classes=3).eval()
    clips = torch.randn(2, 3, 4, 112, 112)
    ((_, first), _) = attach(model, STA(r=(52, 9))).run(clips, record=True).steps
    assert isinstance(first, Keep)
    assert any(len(sample) > 1 for sample in kept_in_windows(first.index, Grid(2, 14, 14), (2, 7, 7), False))


@given(st.integers(1, 15), st.integers(1, 15), st.integers(1, 8), st.integers(1, 8), st.booleans(), st.data())
def test_cells_cover_the_frame_and_share_out_r_by_area(
    h: int, w: int, rows: int, columns: int, shifted: bool, data: st.DataObject
) -> None:
    grid, window = Grid(2, h, w), (2, rows, columns)
    r = data.draw(st.integers(0, grid.per_frame - 1))
    cells, dropped = cells_of(grid, window, r, shifted)
    areas = [cells.count(cell) for cell in range(len(dropped))]
    assert len(cells) == grid.per_frame
    assert sum(dropped) == r
    assert all(0 <= drop <= area for drop, area in zip(dropped, areas, strict=True))
    assert all(abs(drop - r * area / grid.per_frame) < 1 for drop, area in zip(dropped, areas, strict=True))
    for shift in (False, True) if shifted else (False,):
        layout = window_layout(Grid(1, h, w), (1, rows, columns), shift)
        owner = layout.slot // layout.volume
        for cell in range(len(dropped)):
            assert len(set(owner[torch.tensor(cells) == cell].tolist())) <= 1, "a cell lies in one window"


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 6), st.booleans(), st.data())
def test_what_rounding_leaves_over_goes_to_the_largest_remainders(
    h: int, w: int, rows: int, columns: int, shifted: bool, data: st.DataObject
) -> None:
    r = data.draw(st.integers(0, h * w - 1))
    cells, dropped = cells_of(Grid(2, h, w), (2, rows, columns), r, shifted)
    shares = [r * cells.count(cell) / (h * w) for cell in range(len(dropped))]
    up = [share % 1 for share, drop in zip(shares, dropped, strict=True) if drop > share]
    down = [share % 1 for share, drop in zip(shares, dropped, strict=True) if drop < share]
    assert min(up, default=1.0) >= max(down, default=0.0) - 1e-6


def test_leftovers_worked_out_by_hand() -> None:
    """5 x 5 places in windows of 3 x 3 that are cut behind their first place: sides of 1, 2, 1 and 1.

    Of 10 drops the cell of four places is due 1.6, those of two 0.8, single places 0.4: one drop is certain, nine are
    left over for six times 0.8, once 0.6, and the first two single places in the first part of their windows.
    """
    cells, dropped = cells_of(Grid(1, 5, 5), (2, 3, 3), 10, True)
    corners = {(y, x): dropped[cells[5 * y + x]] for y in (0, 1, 3, 4) for x in (0, 1, 3, 4)}
    wanted = {(1, 1): 2, (0, 1): 1, (1, 0): 1, (1, 3): 1, (1, 4): 1, (3, 1): 1, (4, 1): 1, (0, 0): 1, (0, 3): 1}
    assert {corner: drop for corner, drop in corners.items() if drop} == wanted


@pytest.mark.parametrize(("shifted", "places"), [(True, [0, 2, 8, 10]), (False, None)])
def test_one_drop_for_every_window_comes_out_of_its_first_part(shifted: bool, places: list[int] | None) -> None:
    """4 x 4 places in windows of 2 x 2: cut by the shift, the upper left places are parts of their own."""
    cells, dropped = cells_of(Grid(1, 4, 4), (1, 2, 2), 4, shifted)
    if places is None:
        assert dropped == (1, 1, 1, 1)
    else:
        assert [place for place in range(16) if dropped[cells[place]]] == places


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.data())
def test_the_lowest_scores_of_every_cell_stay(seed: int, h: int, w: int, size: int, data: st.DataObject) -> None:
    grid = Grid(1, h, w)
    r = data.draw(st.integers(0, grid.per_frame - 1))
    cells, dropped = cells_of(grid, (1, size, size), r, True)
    score = torch.randint(0, 5, (3, grid.per_frame), generator=torch.Generator().manual_seed(seed)).float()
    kept = _lowest_per_cell(score, grid.per_frame - r, cells=torch.tensor(cells), stay=_staying(cells, dropped))
    assert kept.shape == (3, grid.per_frame - r)
    for sample, values in zip(kept.tolist(), score.tolist(), strict=True):
        for cell, drop in enumerate(dropped):
            members = [place for place in range(grid.per_frame) if cells[place] == cell]
            wanted = sorted(members, key=lambda place: (values[place], place))[: len(members) - drop]
            assert sorted(p for p in sample if cells[p] == cell) == sorted(wanted)


@torch.no_grad()
def test_on_one_window_without_a_shift_it_is_sta() -> None:
    torch.manual_seed(0)
    model = VideoSwin(**{**EVEN, "img_size": 32}, window=(2, 8, 8), num_classes=3).eval()
    clips = torch.randn(2, 3, 4, 32, 32)
    for settings in ({"r": (5, 1)}, {"r": (9, 2), "order": "BF"}, {"r": (5, 1), "score": "activation"}):
        runs = [attach(model, kind(**settings)).run(clips, record=True) for kind in (STA, STAWindow)]  # type: ignore[arg-type]
        for (_, one), (_, other) in zip(*(run.steps for run in runs), strict=True):
            assert isinstance(one, Keep)
            assert isinstance(other, Keep)
            assert torch.equal(one.index.sort(1).values, other.index.sort(1).values)
        torch.testing.assert_close(runs[0].logits, runs[1].logits)


def test_r_is_rounded_down_to_the_windows_of_a_frame_and_noted() -> None:
    geometry = attach(WINDOWS.build()[0], STAWindow()).geometry
    plan = dry_run(STAWindow(r=(7, 3)), geometry)
    # 4 x 5 places in windows of 3 x 3: four of them; 2 x 3 places: one.
    assert [(step.n_in - step.n_out) // 3 for step in plan.steps] == [4, 3]
    assert "block 0: 7 tokens per group rounded down to 4" in plan.notes
    assert not [note for note in dry_run(STAWindow(r=(8, 3)), geometry).notes if "rounded" in note]
    assert dry_run(STAWindow(r=(3, 0)), geometry).steps == ()


def test_its_cost_is_that_of_the_tokens_it_drops() -> None:
    geometry = attach(WINDOWS.build()[0], STAWindow()).geometry
    rounded, given_ = dry_run(STAWindow(r=(7, 3)), geometry), dry_run(STA(r=(4, 3)), geometry)
    assert [step.macs for step in rounded.steps] == [step.macs for step in given_.steps]


def test_settings_and_hosts_that_cannot_be_are_refused() -> None:
    with pytest.raises(ScheduleError, match="first = 'grid' is not one of tome, random"):
        STAWindow(r=4, first="grid")
    host, _ = VIDEO.build()
    for r in (0, 4):
        with pytest.raises(ScheduleError, match="needs a backbone with window attention: on others it would be sta"):
            attach(host, STAWindow(r=r))
    windows, _ = WINDOWS.build()
    with pytest.raises(ScheduleError, match="at block 2 needs a whole grid of 18 tokens, there are 12"):
        attach(windows, compose(STA(r=2, at=(2,)), STAWindow(r=1, at=(2,))))


@torch.no_grad()
def test_a_random_first_frame_is_equal_in_windows_too() -> None:
    torch.manual_seed(0)
    model = VideoSwin(**EVEN, window=(2, 7, 7), num_classes=3).eval()
    clips = torch.randn(2, 3, 4, 112, 112)
    kept = []
    for first in ("tome", "random"):
        ((_, step), _) = attach(model, STAWindow(r=(52, 9), first=first)).run(clips, record=True).steps
        assert isinstance(step, Keep)
        assert all(len(sample) == 1 for sample in kept_in_windows(step.index, Grid(2, 14, 14), (2, 7, 7), False))
        kept.append(step.index)
    assert not torch.equal(kept[0].sort(1).values, kept[1].sort(1).values)
