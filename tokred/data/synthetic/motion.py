"""How the generated objects move: eight classes of paths, told apart only by several poses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOTIONS = ("left", "right", "up", "down", "turn", "still", "grow", "shrink")

# Share of the travel that can lie before the anchor pose; bounds how far from the border anchors must stay.
REACH = 0.62


def paths(motion: Tensor, travel: Tensor, u: Tensor, poses: int) -> tuple[Tensor, Tensor]:
    """Displacement and zoom of objects against their anchor pose, the one of the middle tubelet.

    Every class passes through the same anchor, so that one tubelet alone says nothing about the class.

    Args:
        motion: (B,) index into ``MOTIONS``.
        travel: (B,) length of the way in pixels.
        u: (B, 8) uniform numbers in [0, 1).
        poses: number of poses P.
    Returns:
        offsets (B, P, 2) in pixels as (x, y), and logarithmic scale (B, P); both zero at pose P // 2.
    """
    time = torch.linspace(0, 1, poses)[None]
    bend = (u[:, 0:1] - 0.5) / (2 * math.pi)
    p = time + bend * torch.sin(2 * math.pi * time)  # uneven speed, always forward
    tilt = (u[:, 1:2] - 0.5) * 0.3
    angle = 2 * math.pi * u[:, 2:3]
    length = travel[:, None]

    # left, right, up, down
    sign = torch.where((motion % 2 == 0)[:, None], -1.0, 1.0)
    along, across = sign * length * p, tilt * length * p
    horizontal = (motion < 2)[:, None]
    x = torch.where(horizontal, along, across)
    y = torch.where(horizontal, across, along)

    # turn: an orbit either way, or out and back
    orbit = 2 * math.pi * (0.8 + 0.2 * u[:, 3:4]) * torch.where(u[:, 4:5] < 0.5, -1.0, 1.0) * p + angle
    out = torch.sin(math.pi * p) * length * 0.55
    circles = u[:, 5:6] < 2 / 3
    turn = (motion == MOTIONS.index("turn"))[:, None]
    x = torch.where(turn, torch.where(circles, torch.cos(orbit) * length / 4, out * torch.cos(angle)), x)
    y = torch.where(turn, torch.where(circles, torch.sin(orbit) * length / 4, out * torch.sin(angle)), y)

    # still, grow, shrink: no way, or a short one anywhere, so that a drift does not give the zoom away
    zooms = (motion >= MOTIONS.index("grow"))[:, None]
    stays = (motion == MOTIONS.index("still"))[:, None]
    drift = length * 0.3 * u[:, 6:7] * p
    x = torch.where(zooms, drift * torch.cos(angle), x).masked_fill(stays, 0.0)
    y = torch.where(zooms, drift * torch.sin(angle), y).masked_fill(stays, 0.0)
    zoom = (0.6 + 0.3 * u[:, 7:8]) * p * torch.where((motion == MOTIONS.index("grow"))[:, None], 1.0, -1.0)
    zoom = zoom.masked_fill(~zooms, 0.0)

    offsets = torch.stack([x, y], dim=-1)
    anchor = poses // 2
    return offsets - offsets[:, anchor : anchor + 1], zoom - zoom[:, anchor : anchor + 1]
