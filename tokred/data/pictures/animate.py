"""Still pictures turned into clips with a known motion: real textures for the methods for video."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.data.lists import DataError
from tokred.data.pictures.collection import PictureError, Pictures
from tokred.data.pictures.moves import UNIFORMS, Course, camera, cut_out
from tokred.data.pictures.stills import PictureSource
from tokred.data.source import LabelSet
from tokred.data.synthetic.motion import MOTIONS, REACH
from tokred.data.synthetic.render import stream_seed
from tokred.data.views import Views

# Part of the digest: raise it whenever a change makes other clips.
VERSION = 1
KINDS = ("camera", "cutout")
MOTION = "motion"
ROOM = 1.25  # a picture moved by a camera is this much larger than the frame
CUT = (0.26, 0.4)  # diameter of a cut-out as a share of the frame
DRIFT = 0.12  # way of the background behind a cut-out as a share of the frame
TRIES = 5


class AnimatedSource(PictureSource):
    """One clip per picture, with two label sets: the picture's class, and the motion.

    Clips are either a whole picture under a moving camera (pan, zoom, rotation), or a round cut-out of the picture
    over another picture that drifts slowly. Motions are those of the generated clips, balanced over every 16
    consecutive clips, and a pure function of (seed, number of the picture): batch size and order do not matter.

    Args:
        pictures: what to animate; views: size and normalisation; frames: T.
        seed: of the motions; kinds: which of KINDS, in turns.
    Raises:
        DataError: fewer than two frames.
    """

    def __init__(
        self, pictures: Pictures, views: Views, frames: int, seed: int = 0, kinds: tuple[str, ...] = KINDS
    ) -> None:
        super().__init__(pictures, views)
        if frames < 2:
            raise DataError(f"animated pictures need at least 2 frames, the model takes {frames}")
        self.frames, self.seed, self.kinds = frames, seed, kinds
        self.name = f"{pictures.name}, animated"
        self.label_sets = (*pictures.label_sets, LabelSet(MOTION, MOTIONS, offset=len(pictures.classes)))
        self.notes.append(f"animated: {' and '.join(kinds)} in turns, seed {seed}")

    @property
    def _sources(self) -> range:
        """A background may be any picture of the set, also of a part."""
        return range(self.total)

    def settings(self) -> str:
        """What is made of the pictures, as text for the digest."""
        return repr((VERSION, self.views, self.frames, self.seed, self.kinds))

    def labels(self, index: int) -> list[int]:
        """Class number in each label set."""
        return [*super().labels(index), self.motion(index)[0]]

    def motion(self, index: int) -> tuple[int, str]:
        """Motion and kind of a clip."""
        count = len(MOTIONS) * len(self.kinds)
        generator = torch.Generator().manual_seed(stream_seed("animate-order", self.seed, index // count))
        place = int(torch.randperm(count, generator=generator)[index % count])
        return place // len(self.kinds), self.kinds[place % len(self.kinds)]

    def clips(self, index: int) -> list[Tensor]:
        """The clip of a picture, (3, T, H, W) uint8, as a list of one."""
        motion, kind = self.motion(index)
        generator = torch.Generator().manual_seed(stream_seed("animate", self.seed, index))
        u = torch.rand(UNIFORMS, generator=generator)
        if kind == "camera":
            film = self._under_camera(self._picture(index), camera(motion, u, self.frames, min(self.views.size)), u)
        else:
            course = cut_out(motion, u, self.frames, min(self.views.size))
            film = self._with_cut_out(self._picture(index), self._ground(index, generator), course, u)
        return [film.round_().clamp_(0, 255).to(torch.uint8)]

    def _picture(self, index: int) -> Tensor:
        """(3, h, w) float32 in [0, 255], its short side ROOM times that of the frame, the centre cut to the shape."""
        height, width = (math.ceil(ROOM * length) for length in self.views.size)
        views = Views((height, width), self.views.mean, self.views.std, antialias=self.views.antialias)
        return views.cut(views.resize(self.pictures.pixels(index))[None])[0][:, 0].float()

    def _ground(self, index: int, generator: torch.Generator) -> Tensor:
        """Another picture, chosen by the clip's stream; broken ones are passed over."""
        for place in torch.randint(self.total, (TRIES,), generator=generator).tolist():
            if place != index:
                try:
                    return self._picture(place)
                except PictureError:
                    continue
        return self._picture(index).flip(-1)

    def _under_camera(self, picture: Tensor, course: Course, u: Tensor) -> Tensor:
        height, width = self.views.size
        wander = (u[20:22] - 0.5) * (ROOM - 1) * torch.tensor([width, height])
        return _seen(picture, course.offset + wander, course.angle, course.scale, (height, width))

    def _with_cut_out(self, picture: Tensor, ground: Tensor, course: Course, u: Tensor) -> Tensor:
        height, width = self.views.size
        side = min(height, width)
        heading, time = 2 * math.pi * u[12], torch.linspace(-0.5, 0.5, self.frames)
        way = DRIFT * side * u[13] * time
        drift = torch.stack([way * heading.cos(), way * heading.sin()], dim=1)
        film = _seen(ground, drift, torch.zeros(self.frames), torch.ones(self.frames), (height, width))
        diameter = side * (CUT[0] + (CUT[1] - CUT[0]) * u[14])
        reach = course.offset.abs().amax(dim=0).clamp_max(REACH * side)
        room = (torch.tensor([width, height]) / 2 - reach - diameter / 4).clamp_min(0)
        centre = torch.tensor([width, height]) / 2 + (2 * u[15:17] - 1) * room + course.offset  # (T, 2)
        # The picture's middle, shrunk into the disc: three quarters of it, so that its class can still be seen. It is
        # filtered to its largest size first; the frames shrink it no further than that.
        largest = float(course.scale.max() * diameter / (0.75 * min(picture.shape[1:])))
        small = [max(1, round(largest * length)) for length in picture.shape[1:]]
        piece = F.interpolate(picture[None], size=small, mode="bilinear", antialias=True)[0]
        middle, straight = torch.tensor([width, height]) / 2, torch.zeros(self.frames)
        piece = _seen(piece, centre - middle, straight, course.scale / course.scale.max(), (height, width))
        x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
        away = torch.hypot(x - centre[:, 0, None, None], y[:, None] - centre[:, 1, None, None])  # (T, H, W)
        inside = (course.scale[:, None, None] * diameter / 2 - away + 0.5).clamp(0, 1)
        return torch.lerp(film, piece, inside[None])


def _seen(picture: Tensor, offset: Tensor, angle: Tensor, scale: Tensor, size: tuple[int, int]) -> Tensor:
    """The frames (3, T, H, W) that show a picture (3, h, w) displaced, turned and scaled about the frame's middle.

    Beyond its border the picture is mirrored.

    Args:
        offset: (T, 2) pixels; angle, scale: (T,); size: (H, W).
    """
    (height, width), (rows, columns) = size, picture.shape[1:]
    x = torch.arange(width) + 0.5 - width / 2 - offset[:, 0, None, None]  # (T, 1, W)
    y = (torch.arange(height) + 0.5 - height / 2)[:, None] - offset[:, 1, None, None]  # (T, H, 1)
    cos, sin = (f[:, None, None] / scale[:, None, None] for f in (angle.cos(), angle.sin()))
    place = torch.stack([(cos * x + sin * y) * (2 / columns), (cos * y - sin * x) * (2 / rows)], dim=-1)
    source = picture[None].expand(len(place), -1, -1, -1)
    film = F.grid_sample(source, place, mode="bilinear", padding_mode="reflection", align_corners=False)
    return film.transpose(0, 1).contiguous()
