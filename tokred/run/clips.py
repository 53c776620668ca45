"""Which clips are measured on, and how they are brought to memory once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tokred.backbones.spec import BackboneSpec
from tokred.data.cache import MaterialisedSource, materialise
from tokred.data.corrupt import Corrupted
from tokred.data.labels import answerable
from tokred.data.opening import open_source
from tokred.data.source import Source
from tokred.measure.threads import torch_threads

PREPARE_BATCH = 32


@dataclass(frozen=True)
class ClipSettings:
    """The clips of a comparison, apart from what the backbone says about size and frames.

    Args:
        data: "synthetic", a folder, a list, a video, "cifar10:PATH" or "images:PATH"; clips: at most so many items.
        views: (clips per video, crops per clip) of real video; sampling, stride: see ``tokred.data.sampling``.
        seed: of generated clips.
        animate: turn pictures into clips.
        corrupt: damage done to every clip, see ``tokred.data.corrupt``; None = none.
    """

    data: str = "synthetic"
    clips: int | None = None
    views: tuple[int, int] = (1, 1)
    sampling: str = "dense"
    stride: int | None = None
    seed: int = 0
    animate: bool = False
    corrupt: str | None = None


def open_clips(settings: ClipSettings, spec: BackboneSpec) -> Source:
    """The clips as a source, nothing decoded yet.

    Raises:
        DataError: nothing usable is there.
    """
    source = open_source(
        settings.data,
        frames=spec.frames,
        size=spec.size,
        mean=spec.mean,
        std=spec.std,
        clips=settings.clips,
        views=settings.views,
        sampling=settings.sampling,
        stride=settings.stride or spec.stride,
        seed=settings.seed,
        animate=settings.animate,
    )
    return source if settings.corrupt is None else Corrupted(source, settings.corrupt)


def prepare(
    opened: Source, spec: BackboneSpec, logits: int, count_up: Callable[[int], None] | None = None
) -> MaterialisedSource:
    """Decode or generate every clip once, so that all models see the very same pixels.

    Args:
        logits: length of the model's answers; label sets that they cannot answer are left out, with a note.
        count_up: called with the number of items prepared since the last call.
    """
    done = 0

    def progress(items: int, total: int) -> None:
        nonlocal done
        if count_up is not None:
            count_up(items - done)
        done = items

    # Many small operations: sharing each among threads costs more than it brings.
    with torch_threads(1):
        source = materialise(opened, batch_size=PREPARE_BATCH, progress=progress)
    source.label_sets, notes = answerable(source.label_sets, spec.label_sets, logits)
    source.notes += notes
    return source
