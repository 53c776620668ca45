"""Courses do what their labels say."""

from __future__ import annotations

import pytest
import torch

from tokred.data.pictures.moves import UNIFORMS, WAY, camera, cut_out
from tokred.data.synthetic import MOTIONS

FRAMES, SIDE = 16, 64


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("make", [camera, cut_out])
def test_what_moves_moves_as_labelled_and_nothing_else(make, name: str, seed: int) -> None:
    u = torch.rand(UNIFORMS, generator=torch.Generator().manual_seed(seed))
    course = make(MOTIONS.index(name), u, FRAMES, SIDE)
    assert course.offset.shape == (FRAMES, 2)
    assert course.angle.shape == course.scale.shape == (FRAMES,)
    x, y = (course.offset[-1] - course.offset[0]).tolist()
    growth = float(course.scale[-1] / course.scale[0])
    turned = float((course.angle[-1] - course.angle[0]).abs())
    wanted = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
    if name in wanted:
        along, across = (x, y) if wanted[name][0] else (y, x)
        assert WAY[0] * SIDE * 0.99 <= along * sum(wanted[name]) <= WAY[1] * SIDE * 1.01
        assert abs(across) < 0.2 * abs(along)
    assert (growth > 1.3) == (name == "grow")
    assert (growth < 0.77) == (name == "shrink")
    if name in ("still", *wanted):
        assert turned == 0
        assert growth == 1
    if name == "still":
        assert (course.offset == 0).all()
    if name == "turn" and make is camera:
        assert 0.6 < turned < 1.4
        assert (course.offset == 0).all()
    if name == "turn" and make is cut_out:
        assert course.offset.norm(dim=1).max() > 4


def test_turns_go_both_ways() -> None:
    u = torch.rand(40, UNIFORMS, generator=torch.Generator().manual_seed(0))
    ways = {float((c.angle[-1] - c.angle[0]).sign()) for c in (camera(MOTIONS.index("turn"), v, 8, 32) for v in u)}
    assert ways == {-1.0, 1.0}
