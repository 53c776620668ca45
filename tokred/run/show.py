"""Follow the patches of one clip through reducers, step by step: what ``tokred show`` draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tokred.attach import attach
from tokred.backbones import adapter_for
from tokred.backbones.spec import BackboneSpec, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.budget import solve
from tokred.reducer import TokenReducer
from tokred.registry import build
from tokred.run.clips import ClipSettings, open_clips
from tokred.run.environment import check_device
from tokred.run.rows import is_set
from tokred.tokens import Grid, Tokens

DEFAULT_SHARE = 0.5


@dataclass(frozen=True)
class Stage:
    """What is left behind one block.

    Args:
        block: index; source: (T, H, W) int64, the token that carries each patch, -1 = dropped; tokens: how many are
            left.
    """

    block: int
    source: NDArray[np.int64]
    tokens: int


@dataclass(frozen=True)
class Followed:
    """One reducer on the clip.

    Args:
        spec: full settings; stages: behind each block at which it did something, the first and the last at least.
        notes: what must be shown with it; share: of the unreduced multiply-adds, None = depends on the content.
    """

    spec: str
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    share: float | None = None


@dataclass(frozen=True)
class Shown:
    """A clip and what reducers did with it.

    Args:
        frames: (F, height, width, 3) uint8, as the backbone sees them; per_tubelet: frames of one step of the grid.
        grid: (T, H, W) of patches; name: of the clip; backbone: its name; reducers: in the order they were given.
    """

    frames: NDArray[np.uint8]
    per_tubelet: int
    grid: Grid
    name: str
    backbone: str
    reducers: tuple[Followed, ...]

    def picture(self) -> NDArray[np.uint8]:
        """What ``tokred show`` draws: the clip, and below it a row for each step of each reducer.

        Returns:
            (height, width, 3) bytes.
        """
        from tokred.report.show import strip

        return strip(self)

    def save(self, path: str | Path) -> Path:
        """Write the picture as .png, or the clip in time as .gif or .mp4.

        Raises:
            ValueError: another suffix.
        """
        from tokred.report.show import save

        return save(self, Path(path))


@dataclass(frozen=True)
class ShowSettings:
    """What to show; every field is an option of ``tokred show``, and from Python two take more.

    Args:
        video: a video, a list, a folder, "synthetic" or pictures; or a clip as the backbone takes it, normalised,
            (3, F, H, W) or (1, 3, F, H, W). clip: which of its items.
        reducers: specs, or reducers; one without a strength is solved for half of the multiply-adds.
        stages: at most so many steps of each reducer, evenly chosen, the last among them.
    """

    video: str | Tensor
    reducers: tuple[str | TokenReducer, ...]
    backbone: str = "videomae_vit_nano"
    checkpoint: str | None = None
    num_classes: int | None = None
    clip: int = 0
    stages: int = 4
    stride: int | None = None
    animate: bool = False
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"


def follow_clip(settings: ShowSettings) -> Shown:
    """Run every reducer on the clip and keep which token carries which patch behind each step.

    Raises:
        ValueError: a reducer that cannot be traced to patches or does not run here, a clip that is not there, a
            setting out of range.
    """
    _check(settings)
    host = create_backbone(settings.backbone, settings.checkpoint, num_classes=settings.num_classes)
    info = backbone_info(host)
    assert info is not None
    host = host.to(settings.device, getattr(torch, settings.dtype)).eval()
    clip, name = _clip(settings, info.spec)
    pixels = info.spec.arrange(clip.to(settings.device, getattr(torch, settings.dtype)))
    followed = tuple(_follow(host, spec, pixels, settings.stages) for spec in settings.reducers)
    grid = adapter_for(host).geometry(host).grid
    frames = _pictures(clip[0], info.spec)
    return Shown(frames, max(1, len(frames) // grid.t), grid, name, settings.backbone, followed)


def _check(settings: ShowSettings) -> None:
    if not settings.reducers:
        raise ValueError("no reducer is given; at least one is needed")
    if settings.clip < 0 or settings.stages < 1:
        raise ValueError(f"clip = {settings.clip} must be at least 0, and stages = {settings.stages} at least 1")
    if not getattr(getattr(torch, settings.dtype, None), "is_floating_point", False):
        raise ValueError(f"dtype = {settings.dtype!r} is no floating-point type of torch, such as float32")
    check_device(settings.device)


def _clip(settings: ShowSettings, spec: BackboneSpec) -> tuple[Tensor, str]:
    if isinstance(settings.video, Tensor):
        return _given(settings.video, settings.clip, spec), "a clip"
    wanted = ClipSettings(
        settings.video,
        clips=settings.clip + 1 if settings.video.startswith("synthetic") else None,
        stride=settings.stride,
        seed=settings.seed,
        animate=settings.animate,
    )
    source = open_clips(wanted, spec)
    batch = next(islice(source.batches(1), settings.clip, None), None)
    if batch is None:
        reasons = "; ".join(f"{failure.path}: {failure.reason}" for failure in source.failures)
        raise ValueError(
            f"--clip {settings.clip}: {source.name} has {len(source)} items, counted from 0"
            + (f", and some cannot be used: {reasons}" if reasons else "")
        )
    return batch.clips, batch.names[0] if batch.names else f"{source.name}, clip {settings.clip}"


def _given(clip: Tensor, item: int, spec: BackboneSpec) -> Tensor:
    """(3, F, H, W) or (1, 3, F, H, W) as (1, 3, F, H, W), in float32 on the CPU."""
    size = (3, spec.frames, *spec.size)
    if clip.shape not in (size, (1, *size)):
        raise ValueError(f"a clip of shape {tuple(clip.shape)} was given; {spec.name} takes {size} or {(1, *size)}")
    if item:
        raise ValueError(f"clip {item} was asked for, and one clip was given: clip 0")
    return clip.detach().to("cpu", torch.float32).reshape(1, *size)


def _pictures(clip: Tensor, spec: BackboneSpec) -> NDArray[np.uint8]:
    """(3, F, H, W) normalised to (F, H, W, 3) bytes."""
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (spec.mean, spec.std))
    pixels = (clip * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.permute(1, 2, 3, 0).contiguous().numpy()


def _follow(host: nn.Module, spec: str | TokenReducer, pixels: Tensor, most: int) -> Followed:
    reducer = build(spec) if isinstance(spec, str) else spec
    geometry = adapter_for(host).geometry(host)
    solution = solve(reducer, geometry, DEFAULT_SHARE) if not is_set(reducer) else None
    chosen = reducer if solution is None else solution.reducer
    if chosen.smaller_input(geometry) is not None:
        raise ValueError(f"{chosen.spec} makes the input itself smaller: there are no patches to follow")
    model = attach(host, chosen)
    seen: list[tuple[int, Tokens]] = []
    with torch.inference_mode():
        model.run(pixels, trace=True, observe=lambda block, tokens: seen.append((block, tokens)))
    stages: list[Stage] = []
    for block, tokens in seen:
        source = None if tokens.source is None else tokens.source[0].cpu()
        if source is None or source.numel() != geometry.grid.patches:
            raise ValueError(f"{chosen.spec} makes tokens that carry no particular patches: there is nothing to draw")
        left = Stage(block, source.view(geometry.grid).numpy(), tokens.patch_count)
        if not stages or not np.array_equal(stages[-1].source, left.source):
            stages.append(left)
    steps = [replace(stage, block=max(stage.block, 0)) for stage in (stages[1:] or stages)]
    notes = [*model.notes, *(solution.notes if solution is not None else ())]
    return Followed(
        chosen.spec, tuple(_thinned(steps, most)), tuple(notes), None if solution is None else solution.share
    )


def _thinned(stages: Sequence[Stage], most: int) -> list[Stage]:
    """At most so many, evenly spaced, the last one among them."""
    if len(stages) <= most:
        return list(stages)
    places = np.linspace(0, len(stages) - 1, most + 1).round().astype(int)[1:]
    return [stages[place] for place in places]
