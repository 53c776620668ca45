"""Clips made worse on purpose: how robust a reduced model is, against the unreduced one on the same worse clips."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.data.lists import DataError
from tokred.data.parts import wrapped_part
from tokred.data.source import Batch, Failure, LabelSet, Source

Spoil = Callable[[Tensor, torch.Generator, float], Tensor]


def _noise(clip: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    return clip + strength * clip.std().clamp_min(1e-6) * torch.randn(clip.shape, generator=generator)


def _drop(clip: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Lost frames are shown as the last one that came; the first frame always comes."""
    t = clip.shape[1]
    lost = torch.zeros(t, dtype=torch.bool)
    lost[1 + torch.randperm(max(t - 1, 0), generator=generator)[: round(strength * t)]] = True
    at = torch.where(lost, 0, torch.arange(t)).cummax(0).values
    return clip[:, at]


def _resolution(clip: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    h, w = clip.shape[2:]
    frames = clip.transpose(0, 1)
    small = (max(1, round(h * (1 - strength))), max(1, round(w * (1 - strength))))
    little = F.interpolate(frames, size=small, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(little, size=(h, w), mode="bilinear", align_corners=False).transpose(0, 1)


KINDS: dict[str, tuple[Spoil, float, str]] = {
    "noise": (_noise, float("inf"), "Gaussian noise, its deviation as a share of the clip's own"),
    "frames": (_drop, 1.0, "share of frames lost, the last one that came is shown instead"),
    "resolution": (_resolution, 1.0, "share of the side length that is lost: scaled down and up again"),
}


class Corrupted:
    """Another source, each clip spoilt by itself: the same clip, the same damage, in any batch and order.

    Args:
        source: the clips; spec: "noise:0.5", "frames:0.25" or "resolution:0.5".
    Raises:
        DataError: a kind or a strength that does not exist.
    """

    def __init__(self, source: Source, spec: str) -> None:
        self._spoil, self._strength = parse(spec)
        self._source, self._spec = source, spec
        self.name: str = f"{source.name}, {spec}"
        self.label_sets: tuple[LabelSet, ...] = source.label_sets
        self.failures: list[Failure] = source.failures
        self.notes: list[str] = source.notes

    def __len__(self) -> int:
        """Number of items."""
        return len(self._source)

    def within(self, items: range) -> Corrupted:
        """Only these items; see ``Divisible``."""
        return wrapped_part(self, items)

    def digest(self) -> str:
        """The digest of the source and the damage."""
        return hashlib.sha256(f"{self._source.digest()} {self._spec}".encode()).hexdigest()[:12]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The batches of the source, spoilt."""
        views: dict[int, int] = {}
        for batch in self._source.batches(batch_size):
            spoilt = []
            for clip, item in zip(batch.clips, batch.items, strict=True):
                view = views[item] = views.get(item, -1) + 1
                generator = torch.Generator().manual_seed(item * 1_000_003 + view)
                spoilt.append(self._spoil(clip, generator, self._strength))
            yield replace(batch, clips=torch.stack(spoilt))


def parse(spec: str) -> tuple[Spoil, float]:
    """The kind of damage and its strength.

    Raises:
        DataError: naming what is allowed.
    """
    kind, _, text = spec.partition(":")
    allowed = "; ".join(f"{name}:NUMBER ({what})" for name, (_, _, what) in KINDS.items())
    if kind not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise DataError(f"corrupt: {spec!r} is not known; {hint}allowed: {allowed}")
    spoil, most, _ = KINDS[kind]
    try:
        strength = float(text)
    except ValueError:
        strength = -1.0
    if not 0 <= strength < most:
        raise DataError(f"corrupt: {spec!r} needs a strength from 0 to below {most:g}; allowed: {allowed}")
    return spoil, strength
