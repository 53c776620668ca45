"""Paint what became of the patches over a frame: dropped ones fade, merged ones share a colour and a border."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tokred.report.style import PALETTE

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
FADED = 0.86
"""How far a dropped patch goes towards white."""

TINTED = 0.45
"""How far a merged patch goes towards its region's colour."""

PAPER = np.array([250, 250, 252])
COLOURS = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in PALETTE])


def paint(frame: Bytes, source: Ints, members: Ints, scale: int = 1) -> Bytes:
    """One frame with the fate of its patches.

    Args:
        frame: (height, width, 3); source: (H, W) the token that carries each patch, -1 = dropped.
        members: (tokens,) how many patches of the whole clip each token carries: two or more are drawn as a region.
        scale: every pixel becomes so many by so many.
    Returns:
        (height * scale, width * scale, 3).
    """
    picture = frame.repeat(scale, axis=0).repeat(scale, axis=1).astype(np.float64)
    rows, columns = _edges(picture.shape[0], source.shape[0]), _edges(picture.shape[1], source.shape[1])
    at = source[rows][:, columns]  # the token of every pixel
    dropped = at < 0
    picture[dropped] += FADED * (PAPER - picture[dropped])
    merged = ~dropped & (members[np.maximum(at, 0)] > 1)
    picture[merged] += TINTED * (colour_of(at[merged]) - picture[merged])
    for border in (_borders(at, merged, 0), _borders(at, merged, 1)):
        picture[border] = 0.8 * colour_of(at[border])
    return picture.round().astype(np.uint8)


def colour_of(tokens: Ints) -> NDArray[np.int64]:
    """The colour (n, 3) of regions, the same for a token wherever it is."""
    return COLOURS[tokens * 7 % len(COLOURS)]


def member_counts(source: Ints) -> Ints:
    """How many patches each token carries, (tokens,); ``source`` of any shape."""
    kept = source[source >= 0]
    return np.bincount(kept, minlength=int(kept.max(initial=0)) + 1).astype(np.int64)


def _edges(pixels: int, cells: int) -> NDArray[np.intp]:
    """The cell of each pixel along one axis."""
    return np.minimum(np.arange(pixels) * cells // pixels, cells - 1)


def _borders(at: Ints, merged: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Pixels of regions beside another token, along one axis, on the region's side."""
    found = np.zeros(at.shape, dtype=bool)
    ahead = [slice(None), slice(None)]
    behind = [slice(None), slice(None)]
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    differs = at[tuple(ahead)] != at[tuple(behind)]
    found[tuple(behind)] |= differs
    found[tuple(ahead)] |= differs
    return found & merged
