"""The generated action data set as a source of clips."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.data.parts import check_part
from tokred.data.source import Batch, Failure, LabelSet
from tokred.data.synthetic.motion import MOTIONS
from tokred.data.synthetic.render import Rendered, draw, render, stream_seed
from tokred.data.synthetic.shapes import SHAPES

# Part of the digest: raise it whenever a change makes other clips.
VERSION = 1
# How hard the default clips are: chosen so that a small trained model is good, but not perfect, at both label sets.
NOISE, SLOWEST = 0.2, 0.2
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Scene:
    """Some clips with their labels and the truth about the object.

    Args:
        rendered: clips, positions and masks.
        appearance, motion: (B,) int64 labels.
    """

    rendered: Rendered
    appearance: Tensor
    motion: Tensor


class SyntheticActions:
    """Generated clips with two label sets: what a small object is (appearance) and how it moves (motion).

    A textured, slowly drifting background, sensor noise, the object, and a bright still distractor whose shape, place
    and colour carry no label. Clip ``index`` is a pure function of (seed, split, index): batch size, order and
    threads do not matter. Labels are balanced over every 80 consecutive clips.

    Args:
        clips: number of clips.
        seed: seed of the whole set.
        split: "train" or "test"; their random streams are unrelated.
        size: height and width in pixels, a multiple of 8.
        frames: frames per clip, even, at least 4.
        hold: every pose lasts two frames, so that a tubelet of two shows no motion and classifying it needs time.
        noise: standard deviation of the sensor noise, pixel values being in [0, 1].
        slowest: smallest share of the full way or zoom that an object makes, in (0, 1].
    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        clips: int = 1000,
        seed: int = 0,
        split: str = "test",
        size: int = 64,
        frames: int = 16,
        hold: bool = True,
        noise: float = NOISE,
        slowest: float = SLOWEST,
    ) -> None:
        if clips < 1:
            raise ValueError(f"clips = {clips} must be at least 1")
        if split not in SPLITS:
            raise ValueError(f"split = {split!r} is not one of {', '.join(SPLITS)}")
        if size < 16 or size % 8:
            raise ValueError(f"size = {size} must be a multiple of 8, at least 16 pixels")
        if frames < 4 or frames % 2:
            raise ValueError(f"frames = {frames} must be even and at least 4")
        if not 0 <= noise <= 1:
            raise ValueError(f"noise = {noise} is not in [0, 1]")
        if not 0 < slowest <= 1:
            raise ValueError(f"slowest = {slowest} is not in (0, 1]")
        self.noise, self.slowest = noise, slowest
        self.clips, self.seed, self.split = clips, seed, split
        self.size, self.frames, self.hold = size, frames, hold
        self.name = "synthetic actions"
        self.label_sets: tuple[LabelSet, ...] = (
            LabelSet("appearance", SHAPES, 0),
            LabelSet("motion", MOTIONS, len(SHAPES)),
        )
        self.failures: list[Failure] = []
        self.notes: list[str] = [] if hold else ["hold is off: tubelets of two frames show part of the motion"]

        self.only: range | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def items(self) -> range:
        """The numbers of the clips."""
        return range(self.clips) if self.only is None else self.only

    def within(self, items: range) -> SyntheticActions:
        """Only these clips; see ``Divisible``. Its digest is that of the whole set: the clips follow from it."""
        part = copy.copy(self)
        part.only, part.failures, part.notes = check_part(items, self.clips), [], list(self.notes)
        return part

    def digest(self) -> str:
        """Short hash of the generator's version and settings."""
        shape = (self.clips, self.seed, self.split, self.size, self.frames)
        parts = (VERSION, *shape, self.hold, self.noise, self.slowest)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def labels(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Appearance and motion labels of clips, (B,) int64 each."""
        pairs = torch.tensor([_pair(self.seed, self.split, index) for index in indices])
        return pairs // len(MOTIONS), pairs % len(MOTIONS)

    def scene(self, indices: Sequence[int]) -> Scene:
        """Clips by index (any non-negative index, also beyond ``len``), with labels and the truth about the object."""
        appearance, motion = self.labels(indices)
        seeds = [stream_seed("clip", self.seed, self.split, index) for index in indices]
        stream = draw(seeds, self.frames, self.size, self.frames // 2 if self.hold else self.frames)
        rendered = render(
            appearance,
            motion,
            stream,
            frames=self.frames,
            size=self.size,
            hold=self.hold,
            noise=self.noise,
            slowest=self.slowest,
        )
        return Scene(rendered, appearance, motion)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """All clips in order of their index."""
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        for start in range(0, len(self), batch_size):
            items = list(self.items[start : start + batch_size])
            scene = self.scene(items)
            labels = {"appearance": scene.appearance, "motion": scene.motion}
            names = [
                f"{SHAPES[a]} {MOTIONS[m]} #{i}" for a, m, i in zip(scene.appearance, scene.motion, items, strict=True)
            ]
            yield Batch(scene.rendered.clips, items, labels, names)


def object_share(scene: Scene, tubelet: int, patch: int, frames: int) -> Tensor:
    """Share of each token that the object covers, (B, frames // tubelet, H / patch, W / patch).

    Args:
        scene: what ``SyntheticActions.scene`` returned.
        tubelet: frames per token.
        patch: pixels per token side.
        frames: frames per clip.
    """
    mask = scene.rendered.mask
    per_frame = mask.repeat_interleave(frames // mask.shape[1], dim=1)
    return F.avg_pool3d(per_frame[:, None], (tubelet, patch, patch))[:, 0]


def object_tokens(scene: Scene, tubelet: int, patch: int, frames: int, share: float = 0.05) -> Tensor:
    """Tokens covered by the object by at least ``share``, (B, frames // tubelet, H / patch, W / patch) bool."""
    return object_share(scene, tubelet, patch, frames) >= share


@lru_cache(maxsize=256)
def _block(seed: int, split: str, block: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(stream_seed("labels", seed, split, block))
    return tuple(torch.randperm(len(SHAPES) * len(MOTIONS), generator=generator).tolist())


def _pair(seed: int, split: str, index: int) -> int:
    if index < 0:
        raise ValueError(f"clip index = {index} must not be negative")
    count = len(SHAPES) * len(MOTIONS)
    return _block(seed, split, index // count)[index % count]
