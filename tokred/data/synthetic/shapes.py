"""The silhouettes of the generated data: ten that are classes, and two that only distract.

Every shape is a signed distance (or a bound of it) on [-1, 1]^2, negative inside, so that one table gives clean edges
at any scale and rotation.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

SHAPES = ("disc", "ring", "square", "frame", "triangle", "plus", "star", "bars", "crescent", "ell")
DISTRACTORS = ("hourglass", "chevron")

# A shape's table covers [-EXTENT, EXTENT]^2, so that the distance stays meaningful around the outline.
EXTENT = 1.6
RESOLUTION = 64


def _box(x: Tensor, y: Tensor, cx: float, cy: float, hx: float, hy: float) -> Tensor:
    dx, dy = (x - cx).abs() - hx, (y - cy).abs() - hy
    outside = (dx.clamp_min(0) ** 2 + dy.clamp_min(0) ** 2).sqrt()
    return outside + torch.maximum(dx, dy).clamp_max(0)


def _polygon(x: Tensor, y: Tensor, corners: list[tuple[float, float]]) -> Tensor:
    """Exact signed distance to a simple polygon: nearest edge, sign by crossings of a ray."""
    squared = torch.full_like(x, torch.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        t = (((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        squared = torch.minimum(squared, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
        if ay != by:
            crosses = (ay > y) != (by > y)
            inside ^= crosses & (x < (y - ay) * ex / ey + ax)
    return torch.where(inside, -squared.sqrt(), squared.sqrt())


def _turned(count: int, radii: tuple[float, ...], start: float) -> list[tuple[float, float]]:
    angles = [start + 2 * math.pi * i / count for i in range(count)]
    return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]


def signed_distance(name: str, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of points to the outline of a shape, negative inside.

    Args:
        name: one of ``SHAPES`` or ``DISTRACTORS``.
        x, y: coordinates, y pointing down, shapes lie within [-1, 1]^2; any equal shapes.
    Raises:
        ValueError: an unknown name.
    """
    r = (x * x + y * y).sqrt()
    if name == "disc":
        return r - 0.8
    if name == "ring":
        return (r - 0.74).abs() - 0.24
    if name == "square":
        return _box(x, y, 0, 0, 0.72, 0.72)
    if name == "frame":
        return torch.maximum(_box(x, y, 0, 0, 0.88, 0.88), -_box(x, y, 0, 0, 0.46, 0.46))
    if name == "triangle":
        return _polygon(x, y, _turned(3, (1.0,), -math.pi / 2))
    if name == "plus":
        return torch.minimum(_box(x, y, 0, 0, 1.0, 0.3), _box(x, y, 0, 0, 0.3, 1.0))
    if name == "star":
        return _polygon(x, y, _turned(10, (1.0, 0.4), -math.pi / 2))
    if name == "bars":
        return torch.minimum(_box(x, y, -0.6, 0, 0.27, 0.9), _box(x, y, 0.6, 0, 0.27, 0.9))
    if name == "crescent":
        return torch.maximum(r - 0.95, 0.75 - ((x - 0.45) ** 2 + y * y).sqrt())
    if name == "ell":
        return torch.minimum(_box(x, y, -0.5, 0, 0.3, 0.9), _box(x, y, 0.0, 0.6, 0.8, 0.3))
    if name == "hourglass":
        return torch.minimum(
            _polygon(x, y, [(-0.8, -1.0), (0.8, -1.0), (0.0, 0.1)]),
            _polygon(x, y, [(-0.8, 1.0), (0.0, -0.1), (0.8, 1.0)]),
        )
    if name == "chevron":
        corners = [(-0.9, -0.05), (0.0, -0.9), (0.9, -0.05), (0.9, 0.65), (0.0, -0.2), (-0.9, 0.65)]
        return _polygon(x, y, corners)
    raise ValueError(f"unknown shape {name!r}; there are {', '.join(SHAPES + DISTRACTORS)}")


@lru_cache(maxsize=1)
def shape_tables() -> tuple[Tensor, Tensor]:
    """Distance tables and areas of ``SHAPES + DISTRACTORS``.

    Returns:
        tables (S, RESOLUTION, RESOLUTION) on [-EXTENT, EXTENT]^2 (corner samples on the border), and areas (S,) in
        squared shape units.
    """
    names = SHAPES + DISTRACTORS
    axis = torch.linspace(-EXTENT, EXTENT, RESOLUTION, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    tables = torch.stack([signed_distance(name, x, y) for name in names]).float()
    fine = (torch.arange(800, dtype=torch.float64) + 0.5) / 400 - 1
    y, x = torch.meshgrid(fine, fine, indexing="ij")
    areas = torch.stack([(signed_distance(name, x, y) < 0).double().mean() * 4 for name in names])
    return tables, areas.float()
