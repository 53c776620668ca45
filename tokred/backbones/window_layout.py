"""Three-dimensional shifted windows: which place of the grid sits in which window slot.

Reference: Video Swin Transformer (Liu et al., CVPR 2022), official mmaction/models/backbones/swin_transformer.py and
torchvision's swin3d. Differs from both in that one gather does the padding, the roll and the partition, and in that
windows with the same shift mask are neighbours: a mask is stored per pattern, at most eight, and not per window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor

from tokred.ranking import ranking
from tokred.tokens import Grid

BLOCKED = -100.0
"""What the shift mask adds to a blocked pair, as in the reference (finite, so that float16 is safe)."""

Window = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """How a grid is cut into windows. Made by ``window_layout``; compare by identity.

    Args:
        grid: the map (T, H, W), P places.
        asked: the window before clipping; shifted: whether a shift was asked for.
        window: its lengths (t, h, w), clipped to the map.
        shift: roll per axis, 0 where the map is not longer than the window.
        ranges: per mask pattern: first window, one past the last.
        index: (count * V,) int64, raster place of every window slot; P where the slot is padding.
        slot: (P,) int64, window slot of every place: the inverse of ``index``.
        pads: (count * V - P,) int64, the slots that are padding.
        masks: (patterns, V, V) bool, True = this query may not see this key.
    """

    grid: Grid
    asked: Window
    shifted: bool
    window: Window
    shift: Window
    ranges: tuple[tuple[int, int], ...]
    index: Tensor
    slot: Tensor
    pads: Tensor
    masks: Tensor

    @property
    def volume(self) -> int:
        """Slots of a window, V."""
        return math.prod(self.window)

    @property
    def count(self) -> int:
        """Number of windows."""
        return self.ranges[-1][1]

    def to(self, device: torch.device | str) -> WindowLayout:
        """The same layout with its tensors on a device; made once per device."""
        return window_layout(self.grid, self.asked, self.shifted, torch.device(device))

    def added(self, dtype: torch.dtype) -> Tensor:
        """The masks as numbers to add to scores, (patterns, V, V): 0 or ``BLOCKED``; not to be written to."""
        return self.masks.to(dtype) * BLOCKED if torch.compiler.is_compiling() else _added(self, dtype)

    def split(self, x: Tensor, pad: Tensor | None = None) -> Tensor:
        """Places in raster order to windows: padding, roll and partition in one gather.

        Args:
            x: (B, P, C).
            pad: (C,) what padding slots hold; None = zeros.
        Returns:
            (count, B, V, C). Windows are the outer axis, so that a range of them is a view in any batch.
        """
        b, p, c = x.shape
        places = self.index
        if self.pads.numel():
            places = places.clamp(max=p - 1)
        places = places.view(self.count, 1, self.volume)
        if b != 1:
            places = places + torch.arange(0, b * p, p, device=x.device)[:, None]
        out = x.reshape(b * p, c).index_select(0, places.flatten()).view(self.count, b, self.volume, c)
        if self.pads.numel():
            window, inside = self.pads // self.volume, self.pads % self.volume
            out[window, :, inside] = x.new_zeros(c) if pad is None else pad.to(x.dtype)
        return out

    def join(self, windows: Tensor) -> Tensor:
        """Windows back to places in raster order: undoes ``split``, padding dropped.

        Args:
            windows: (count, B, V, C).
        Returns:
            (B, P, C).
        """
        count, b, v, c = windows.shape
        slots = self.slot
        if b != 1:
            first = torch.arange(0, b * v, v, device=windows.device)[:, None]
            slots = (slots // v * (b * v) + slots % v + first).flatten()
        return windows.reshape(count * b * v, c).index_select(0, slots).view(b, self.grid.patches, c)


def clipped(grid: Grid, window: Window, shifted: bool) -> tuple[Window, Window]:
    """Window and shift on a map: an axis not longer than the window is one window, which never shifts."""
    lengths = [min(length, size) for length, size in zip(grid, window, strict=True)]
    shifts = [size // 2 if shifted and length > size else 0 for length, size in zip(grid, window, strict=True)]
    return cast(Window, tuple(lengths)), cast(Window, tuple(shifts))


_CPU = torch.device("cpu")


def window_layout(grid: Grid, window: Sequence[int], shifted: bool, device: torch.device | None = None) -> WindowLayout:
    """The layout of a map.

    Args:
        grid: the map (T, H, W).
        window: window lengths (t, h, w) of the model, before clipping.
        shifted: whether the block shifts its windows (every second one does), by half a window.
        device: where its tensors lie, default CPU.
    Raises:
        ValueError: an empty map or window.
    """
    wanted = tuple(int(length) for length in window)
    if len(wanted) != 3 or min(wanted) < 1 or min(grid) < 1:
        raise ValueError(f"window {wanted} on a map of {tuple(grid)}: both need three lengths of at least 1")
    place = _CPU if device is None else device
    if torch.compiler.is_compiling():  # what is traced knows no cache
        return _moved(_fresh(grid, wanted, shifted), place)
    return _kept(grid, wanted, shifted, place)


@lru_cache(maxsize=256)
def _kept(grid: Grid, asked: Window, shifted: bool, device: torch.device) -> WindowLayout:
    # The cached tensors outlive the caller's mode: no inference tensors.
    with torch.inference_mode(False):
        if device == _CPU:
            return _fresh(grid, asked, shifted)
        return _moved(_kept(grid, asked, shifted, _CPU), device)


def _moved(layout: WindowLayout, device: torch.device) -> WindowLayout:
    index, slot, pads, masks = [part.to(device) for part in (layout.index, layout.slot, layout.pads, layout.masks)]
    sizes = (layout.grid, layout.asked, layout.shifted, layout.window, layout.shift, layout.ranges)
    return WindowLayout(*sizes, index, slot, pads, masks)


def _fresh(grid: Grid, asked: Window, shifted: bool) -> WindowLayout:
    window, shift = clipped(grid, asked, shifted)
    return cut(grid, window, shift, asked, shifted)


def cut(grid: Grid, window: Window, shift: Window, asked: Window | None = None, shifted: bool = True) -> WindowLayout:
    """The layout of a map for exactly this window and shift; on the CPU, not cached.

    Args:
        grid: the map (T, H, W).
        window: lengths (t, h, w); shift: roll per axis, shorter than the window.
        asked, shifted: what to write into the layout; default: the window itself.
    """
    # Lists where expressions would do: torch.compile traces these. On the CPU, whatever the default device is.
    counts = [math.ceil(length / size) for length, size in zip(grid, window, strict=True)]
    places, valid, mixed, regions, sizes = [], [], [], [], [1]
    bits: list[tuple[bool, ...]] = [()]
    for length, size, roll, count in zip(grid, window, shift, counts, strict=True):
        rolled = (torch.arange(count * size, device=_CPU) + roll) % (count * size)
        places.append(rolled.view(count, size))
        valid.append(rolled.view(count, size) < length)
        # Only the last window of a shifted axis holds two regions: what was there, and what was rolled in.
        last = torch.arange(count, device=_CPU) == count - 1
        mixed.append(last if roll else torch.zeros_like(last))
        regions.append(torch.arange(size, device=_CPU) >= size - roll)
        choices = [(False, count - 1), (True, 1)] if roll else [(False, count)]
        sizes = [n * times for n in sizes for _, times in choices]
        bits = [(*bit, last) for bit in bits for last, _ in choices]
    t, h, w = [_spread(axis, i) for i, axis in enumerate(places)]
    inside = _spread(valid[0], 0) & _spread(valid[1], 1) & _spread(valid[2], 2)
    index = torch.where(inside, (t * grid.h + h) * grid.w + w, grid.patches)
    pattern = 4 * mixed[0].long()[:, None, None] + 2 * mixed[1].long()[:, None] + mixed[2].long()
    order = ranking(pattern.flatten())
    index = index.reshape(math.prod(counts), math.prod(window))[order].flatten().contiguous()
    slots = ranking(index)  # padding has the largest number, so it comes last
    slot, pads = slots[: grid.patches].contiguous(), slots[grid.patches :].contiguous()
    masks = torch.stack([_blocked(bit, regions) for bit in bits])
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    ranges = tuple([(end - size, end) for size, end in zip(sizes, ends, strict=True)])
    return WindowLayout(grid, asked or window, shifted, window, shift, ranges, index, slot, pads, masks)


@lru_cache(maxsize=64)
def _added(layout: WindowLayout, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return layout.masks.to(dtype) * BLOCKED


def _spread(axis: Tensor, i: int) -> Tensor:
    """(count, size) of axis i to the six axes (counts t, h, w, then sizes t, h, w)."""
    shape = [1] * 6
    shape[i], shape[3 + i] = axis.shape
    return axis.view(shape)


def _blocked(mixed: Sequence[bool], regions: Sequence[Tensor]) -> Tensor:
    """Pairs of slots of different regions, (V, V) bool, in a window that is the last one on the ``mixed`` axes."""
    # No "region & bit", here and above: torch.jit's tracer, which counters use, cannot combine a tensor and a bool.
    t, h, w = [region if bit else torch.zeros_like(region) for region, bit in zip(regions, mixed, strict=True)]
    place = (4 * t.long()[:, None, None] + 2 * h.long()[:, None] + w.long()).flatten()
    return place[:, None] != place[None, :]


def relative_index(window: Sequence[int]) -> Tensor:
    """Row of the bias table for each pair of slots, (V, V) int64, slots in (t, h, w) order."""
    t, h, w = window
    axes = torch.meshgrid(*(torch.arange(length) for length in window), indexing="ij")
    place = torch.stack(axes).flatten(1)  # (3, V)
    away = place[:, :, None] - place[:, None, :]  # query minus key
    return ((away[0] + t - 1) * (2 * h - 1) + away[1] + h - 1) * (2 * w - 1) + away[2] + w - 1
