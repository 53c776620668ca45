"""Draws generated clips: a pure function of one random stream per clip."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.data.synthetic.motion import REACH, paths
from tokred.data.synthetic.shapes import DISTRACTORS, EXTENT, SHAPES, shape_tables

MEAN, STD = 0.45, 0.25
OCTAVES = (5, 10, 20, 40)
PAD = 4  # canvas beyond the frame on each side, in pixels at size 64: room for the camera drift
UNIFORMS, NORMALS = 40, 16
TEXTURE = 8


@dataclass(frozen=True)
class Rendered:
    """Clips with everything that is known about them. P poses: one per tubelet when they are held, else one per frame.

    Args:
        clips: (B, 3, T, H, W) float32, normalised by ``MEAN`` and ``STD``.
        centre: (B, P, 2) position of the object in pixels, (x, y).
        scale: (B, P) side of the square with the object's area, in pixels.
        mask: (B, P, H, W) share of each pixel that the object covers.
        distractor: (B, 2) position of the distractor in the first frame, in pixels.
    """

    clips: Tensor
    centre: Tensor
    scale: Tensor
    mask: Tensor
    distractor: Tensor


@dataclass(frozen=True)
class Stream:
    """The random numbers of some clips, drawn per clip, so that no clip depends on its neighbours."""

    uniform: Tensor  # (B, UNIFORMS)
    normal: Tensor  # (B, NORMALS)
    octaves: tuple[Tensor, ...]  # (B, 1, n, n) each
    texture: Tensor  # (B, 1, TEXTURE, TEXTURE)
    jitter: Tensor  # (B, P, 2)
    noise: Tensor  # (B, 3, T, H, W)


def stream_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts; different parts give unrelated streams."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def draw(seeds: list[int], frames: int, size: int, poses: int) -> Stream:
    """All random numbers of the clips with these seeds."""
    b = len(seeds)
    cells = [n * n for n in OCTAVES] + [TEXTURE * TEXTURE, poses * 2, NORMALS]
    uniform = torch.empty(b, UNIFORMS)
    normal = torch.empty(b, sum(cells))
    noise = torch.empty(b, 3, frames, size, size)
    generator = torch.Generator()
    for i, seed in enumerate(seeds):
        generator.manual_seed(seed)
        uniform[i].uniform_(generator=generator)
        normal[i].normal_(generator=generator)
        noise[i].normal_(generator=generator)
    *octaves, texture, jitter, rest = normal.split(cells, dim=1)
    grids = tuple(o.reshape(b, 1, n, n) for o, n in zip(octaves, OCTAVES, strict=True))
    return Stream(uniform, rest, grids, texture.reshape(b, 1, TEXTURE, TEXTURE), jitter.reshape(b, poses, 2), noise)


def render(
    appearance: Tensor,
    motion: Tensor,
    stream: Stream,
    *,
    frames: int,
    size: int,
    hold: bool,
    noise: float,
    slowest: float,
) -> Rendered:
    """Clips of objects in front of a drifting background, with a still distractor.

    Args:
        appearance: (B,) index into ``SHAPES``.
        motion: (B,) index into ``MOTIONS``.
        stream: their random numbers.
        frames: T, even.
        size: H = W in pixels; lengths below are given at 64 and scale with it.
        hold: whether each pose lasts two frames (one tubelet).
        noise: standard deviation of the sensor noise, pixel values being in [0, 1].
        slowest: smallest share of the full way or zoom that an object makes; the share is uniform up to 1.
    """
    u, unit = stream.uniform, size / 64
    poses = stream.jitter.shape[1]
    tables, areas = shape_tables()

    travel = (24 + 14 * u[:, 0]) * unit
    offsets, zoom = paths(motion, travel, u[:, 1:9], poses)
    pace = slowest + (1 - slowest) * u[:, 30]
    offsets, zoom = offsets * pace[:, None, None], zoom * pace[:, None]
    room = size / 2 - 6 * unit - REACH * travel
    anchor = size / 2 + (2 * u[:, 9:11] - 1) * room[:, None]
    centre = anchor[:, None] + offsets + 0.7 * unit * stream.jitter
    side = 8 * unit * torch.exp(u[:, 11] * math.log(13 / 8))
    scale = side[:, None] * zoom.exp()
    colour = u[:, 12:13] * 0.45 + 0.3
    ground = 0.2 + 0.3 * u[:, 13:14] + 0.2 * (u[:, 14:17] - 0.5)
    paint = ground + (colour * (1 + 0.4 * stream.normal[:, :3])).clamp_min(0.2)

    # The distractor is drawn before anything is known of the labels' path: its place and kind carry no label.
    kind = len(SHAPES) + (u[:, 17] * len(DISTRACTORS)).long()
    corner = torch.where(u[:, 18:20] < 0.5, -1.0, 1.0) * (14 + 9 * u[:, 20:22]) * unit
    distractor = size / 2 + corner
    bright = ground + (0.35 + 0.4 * u[:, 22:23]) * (1 + 0.3 * stream.normal[:, 3:6]).clamp_min(0.5)
    side_d = (8 + 3 * u[:, 23]) * unit
    angle_d = (u[:, 24] - 0.5) * 0.7 + math.pi * (u[:, 25] * 2).floor()

    pad = max(1, round(PAD * unit))
    canvas = size + 2 * pad
    texture = sum(
        0.06 * F.interpolate(grid, size=(canvas, canvas), mode="bicubic", align_corners=True) for grid in stream.octaves
    )
    world = ground[:, :, None, None] + texture  # (B, 3, canvas, canvas)
    cover = _cover(
        tables[kind], None, (distractor + pad)[:, None], (side_d / areas[kind].sqrt())[:, None], angle_d, canvas
    )
    world = torch.lerp(world, bright[:, :, None, None] + 0.5 * texture, cover[0])

    heading = 2 * math.pi * u[:, 26]
    speed = 0.25 * unit * u[:, 27] * frames / poses
    steps = torch.arange(poses) - (poses - 1) / 2
    shift = torch.stack([heading.cos(), heading.sin()], dim=-1)[:, None] * (speed[:, None] * steps)[..., None]
    film = _shifted(world, shift + pad, size)  # (B, 3, P, H, W)

    angle = (u[:, 28] - 0.5) * math.radians(40)
    skin = F.interpolate(stream.texture, size=tables.shape[-2:], mode="bilinear", align_corners=True)[:, 0]
    mask, inside = _cover(
        tables[appearance], skin, centre, scale / areas[appearance].sqrt()[:, None], angle, size
    )  # (B, P, H, W) each
    film = torch.lerp(film, paint[:, :, None, None, None] + 0.1 * inside[:, None], mask[:, None])
    if hold:
        film = film.repeat_interleave(frames // poses, dim=2)
    clips = film.add_(stream.noise, alpha=noise).clamp_(0, 1).sub_(MEAN).div_(STD)
    return Rendered(clips, centre, scale, mask, distractor)


def _cover(
    table: Tensor, skin: Tensor | None, centre: Tensor, scale: Tensor, angle: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """Share of each pixel that a shape covers, and its texture there, (B, P, size, size) each.

    Args:
        table: (B, R, R) distances; skin: (B, R, R) or None; centre: (B, P, 2) pixels; scale: (B, P) pixels per shape
        unit; angle: (B,) radians.
    """
    b, poses = scale.shape
    pixel = torch.arange(size) + 0.5
    dx = (pixel - centre[..., 0:1])[:, :, None, :] / scale[..., None, None]
    dy = (pixel - centre[..., 1:2])[:, :, :, None] / scale[..., None, None]
    cos, sin = angle.cos()[:, None, None, None] / EXTENT, angle.sin()[:, None, None, None] / EXTENT
    grid = torch.stack([dx * cos + dy * sin, dy * cos - dx * sin], dim=-1).reshape(b, poses * size, size, 2)
    source = table[:, None] if skin is None else torch.stack([table, skin], dim=1)
    sampled = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=True)
    sampled = sampled.reshape(b, -1, poses, size, size)
    share = (0.5 - sampled[:, 0] * scale[..., None, None]).clamp_(0, 1)
    return share, sampled[:, -1]


def _shifted(world: Tensor, shift: Tensor, size: int) -> Tensor:
    """Windows (B, 3, P, size, size) of a canvas (B, 3, S, S) at sub-pixel shifts (B, P, 2)."""
    b, poses, _ = shift.shape
    canvas = world.shape[-1]
    pixel = torch.arange(size, dtype=torch.float32)
    x = (pixel + shift[..., 0:1])[:, :, None, :].expand(b, poses, size, size)
    y = (pixel + shift[..., 1:2])[:, :, :, None].expand(b, poses, size, size)
    grid = (torch.stack([x, y], dim=-1) * (2 / (canvas - 1)) - 1).reshape(b, poses * size, size, 2)
    film = F.grid_sample(world, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return film.reshape(b, 3, poses, size, size)
