"""Windows of a map: one gather does padding, roll and partition; masks by pattern."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.backbones.window_layout import BLOCKED, WindowLayout, clipped, cut, relative_index, window_layout
from tokred.tokens import Grid

CASES = [
    (Grid(4, 8, 8), (2, 4, 4)),
    (Grid(5, 9, 7), (2, 4, 4)),  # padded on every axis
    (Grid(2, 3, 11), (3, 2, 5)),  # time clipped
    (Grid(7, 3, 4), (3, 4, 4)),  # space clipped
    (Grid(1, 1, 1), (8, 7, 7)),
    (Grid(2, 6, 6), (2, 3, 3)),  # time is as long as the window
]


def rolled(x: Tensor, grid: Grid, window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """The reference's way: pad, roll, partition. x (B, P, C); (windows in raster order, B, V, C)."""
    b, _, c = x.shape
    padded = [math.ceil(length / size) * size for length, size in zip(grid, window, strict=True)]
    pad = [n for length, whole in zip(reversed(grid), reversed(padded), strict=True) for n in (0, whole - length)]
    x = F.pad(x.view(b, *grid, c), (0, 0, *pad))
    x = torch.roll(x, tuple(-roll for roll in shift), (1, 2, 3))
    (t, h, w), (p, q, r) = window, padded
    x = x.view(b, p // t, t, q // h, h, r // w, w, c).permute(1, 3, 5, 0, 2, 4, 6, 7)
    return x.reshape(-1, b, t * h * w, c)


def reference_masks(grid: Grid, window: tuple[int, ...], shift: tuple[int, ...]) -> Tensor:
    """Blocked pairs by the reference's slices, (windows in raster order, V, V)."""
    padded = [math.ceil(length / size) * size for length, size in zip(grid, window, strict=True)]
    regions = torch.zeros(padded)
    number = 0
    spans = [
        [slice(0, -size), slice(-size, -roll), slice(-roll, None)] if roll else [slice(None)]
        for size, roll in zip(window, shift, strict=True)
    ]
    for t in spans[0]:
        for h in spans[1]:
            for w in spans[2]:
                regions[t, h, w] = number
                number += 1
    ids = rolled(regions.view(1, -1, 1), Grid(*padded), window, (0, 0, 0))[:, 0, :, 0]
    return ids[:, :, None] != ids[:, None, :]


def raster(layout: WindowLayout) -> Tensor:
    """Number of each window of the layout in raster order."""
    padded = [math.ceil(length / size) * size for length, size in zip(layout.grid, layout.window, strict=True)]
    numbers = torch.arange(math.prod(padded)).view(1, -1, 1)
    windows = rolled(numbers, Grid(*padded), layout.window, layout.shift)[:, 0, :, 0]
    place = layout.index.view(layout.count, layout.volume)
    _, h, w = layout.grid
    t, rest = place // (h * w), place % (h * w)
    on_padded = (t * padded[1] + rest // w) * padded[2] + rest % w
    real = place < layout.grid.patches
    found = []
    for window, valid in zip(on_padded, real, strict=True):
        slot = int(valid.long().argmax())
        found.append(int((windows[:, slot] == window[slot]).long().argmax()))
    return torch.tensor(found)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_splitting_is_padding_rolling_and_partitioning(grid: Grid, window: tuple[int, int, int], shifted: bool) -> None:
    layout = window_layout(grid, window, shifted)
    x = torch.randn(2, grid.patches, 3)
    windows = layout.split(x)
    assert torch.equal(windows, rolled(x, grid, layout.window, layout.shift)[raster(layout)])
    assert torch.equal(layout.join(windows), x)
    assert torch.equal(layout.split(x[:1]), windows[:, :1])


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("grid", "window"), CASES)
def test_masks_are_those_of_the_reference(grid: Grid, window: tuple[int, int, int], shifted: bool) -> None:
    layout = window_layout(grid, window, shifted)
    sizes = [end - first for first, end in layout.ranges]
    assert all(sizes)
    assert sum(sizes) == layout.count
    each = layout.masks.repeat_interleave(torch.tensor(sizes), dim=0)
    assert torch.equal(each, reference_masks(grid, layout.window, layout.shift)[raster(layout)])
    assert len({mask.numpy().tobytes() for mask in layout.masks}) == len(layout.ranges) <= 8


def test_padding_holds_what_is_asked_for() -> None:
    layout = window_layout(Grid(1, 3, 3), (1, 2, 2), False)
    x, pad = torch.randn(2, 9, 4), torch.arange(4.0)
    windows = layout.split(x, pad).flatten(0, 2)
    assert layout.pads.numel() == 7
    assert int((windows == pad).all(-1).sum()) == 14
    assert int((layout.split(x) == 0).all(-1).sum()) == 14
    assert torch.equal(layout.join(layout.split(x, pad)), x)


def test_an_axis_not_longer_than_the_window_is_one_window_that_never_shifts() -> None:
    assert clipped(Grid(16, 14, 7), (16, 7, 7), True) == ((16, 7, 7), (0, 3, 0))
    assert clipped(Grid(4, 14, 5), (8, 7, 7), True) == ((4, 7, 5), (0, 3, 0))
    assert clipped(Grid(16, 14, 7), (8, 7, 7), False) == ((8, 7, 7), (0, 0, 0))
    layout = window_layout(Grid(16, 56, 56), (8, 7, 7), True)
    assert (layout.count, layout.volume, len(layout.ranges)) == (128, 392, 8)
    assert len(window_layout(Grid(16, 14, 14), (16, 7, 7), True).ranges) == 4
    assert len(window_layout(Grid(16, 14, 14), (8, 7, 7), False).ranges) == 1


def test_gradients_pass_through_both_ways() -> None:
    layout = window_layout(Grid(2, 3, 3), (2, 2, 2), True)
    x = torch.randn(2, 18, 2, dtype=torch.float64, requires_grad=True)
    pad = torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, pad: layout.join(layout.split(x, pad) ** 2), (x, pad))
    assert torch.autograd.gradcheck(lambda x, pad: layout.split(x, pad) ** 2, (x, pad))


def test_layouts_are_made_once_and_serve_any_mode() -> None:
    with torch.inference_mode(), torch.device("meta"):
        layout = window_layout(Grid(3, 5, 7), (2, 2, 2), True)
        added = layout.added(torch.float32)
    assert layout is window_layout(Grid(3, 5, 7), [2, 2, 2], True)
    assert layout.to("cpu") is layout
    assert layout.index.device.type == "cpu"
    assert not layout.index.is_inference()
    assert not added.is_inference()
    assert layout.to("meta").index.is_meta
    assert set(added.unique().tolist()) == {BLOCKED, 0.0}
    x = torch.randn(1, 105, 2, requires_grad=True)
    layout.join(layout.split(x)).sum().backward()
    assert x.grad is not None


def test_a_given_shift_is_taken_as_it_is() -> None:
    layout = cut(Grid(2, 4, 4), (2, 4, 4), (0, 1, 0))
    assert layout.shift == (0, 1, 0)
    assert torch.equal(layout.masks[-1], reference_masks(layout.grid, (2, 4, 4), (0, 1, 0))[0])


@pytest.mark.parametrize(
    ("grid", "window"), [(Grid(2, 4, 4), (2, 4)), (Grid(2, 4, 4), (0, 4, 4)), (Grid(0, 4, 4), (1, 1, 1))]
)
def test_empty_maps_and_windows_are_refused(grid: Grid, window: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three lengths of at least 1"):
        window_layout(grid, window, False)


def test_relative_index_counts_offsets() -> None:
    t, h, w = 2, 3, 2
    index = relative_index((t, h, w))
    places = [(a, b, c) for a in range(t) for b in range(h) for c in range(w)]
    for i, query in enumerate(places):
        for j, key in enumerate(places):
            dt, dh, dw = (a - b for a, b in zip(query, key, strict=True))
            assert index[i, j] == ((dt + t - 1) * (2 * h - 1) + dh + h - 1) * (2 * w - 1) + dw + w - 1
