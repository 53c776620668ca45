"""Where a camera, or a cut-out, is in each frame of an animated picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.data.synthetic.motion import MOTIONS, paths

UNIFORMS = 24
WAY = (0.35, 0.6)  # share of the frame that a camera or a cut-out crosses
ANGLE = math.radians(75)
ZOOM = 0.7  # natural logarithm of the largest change of scale


@dataclass(frozen=True)
class Course:
    """Poses of one thing over T frames.

    Args:
        offset: (T, 2) displacement (x, y) in pixels of the frame; right and down are positive.
        angle: (T,) radians, clockwise on the screen; scale: (T,) size relative to the middle frame.
    """

    offset: Tensor
    angle: Tensor
    scale: Tensor


def camera(motion: int, u: Tensor, frames: int, side: int) -> Course:
    """How the content of a picture moves when the camera does: pan, zoom, rotation, or not at all.

    The label says what is seen: "left" is content that moves to the left, "grow" is a zoom in, "turn" a rotation of
    the whole picture either way.

    Args:
        motion: index into ``MOTIONS``; u: (UNIFORMS,) numbers in [0, 1); frames: T; side: of the frame, pixels.
    """
    name = MOTIONS[motion]
    time = torch.linspace(-0.5, 0.5, frames)
    uneven = time + (u[0] - 0.5) / (2 * math.pi) * torch.sin(2 * math.pi * time)
    way = side * (WAY[0] + (WAY[1] - WAY[0]) * u[1])
    slant = (u[2] - 0.5) * 0.3
    still = torch.zeros(frames)
    sign = -1.0 if name in ("left", "up", "shrink") else 1.0
    along, across = sign * way * uneven, slant * way * uneven
    if name in ("left", "right"):
        return Course(torch.stack([along, across], dim=1), still, still + 1)
    if name in ("up", "down"):
        return Course(torch.stack([across, along], dim=1), still, still + 1)
    nowhere = torch.zeros(frames, 2)
    if name == "turn":
        turned = ANGLE * (0.6 + 0.4 * u[3]) * (1.0 if u[4] < 0.5 else -1.0) * uneven
        return Course(nowhere, turned, still + 1)
    if name == "still":
        return Course(nowhere, still, still + 1)
    return Course(nowhere, still, torch.exp(sign * ZOOM * (0.6 + 0.4 * u[3]) * uneven))


def cut_out(motion: int, u: Tensor, frames: int, side: int) -> Course:
    """How a cut-out moves: along the paths of the generated clips, of which "turn" is an orbit.

    Args:
        see ``camera``.
    """
    travel = side * (WAY[0] + (WAY[1] - WAY[0]) * u[1:2])
    offsets, zoom = paths(torch.tensor([motion]), travel, u[None, 2:10], frames)
    return Course(offsets[0], torch.zeros(frames), zoom[0].exp())
