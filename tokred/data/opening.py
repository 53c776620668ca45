"""From what a user names - "synthetic", a folder, a list, a video - to a source of clips."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tokred.data.lists import LIST_SUFFIXES, VIDEO_SUFFIXES, DataError, Item, Listing, read_list, scan_folder, thinned
from tokred.data.parts import wrapped_part
from tokred.data.pictures.finding import close_by
from tokred.data.pictures.opening import SOURCES, is_pictures, open_pictures
from tokred.data.sampling import Sampling
from tokred.data.source import Batch, Failure, LabelSet, Source
from tokred.data.videos import SHORT, VideoSource
from tokred.data.views import Triple, Views

SYNTHETIC = "synthetic"
SYNTHETIC_CLIPS = 1000
ALLOWED = f"a folder, a list, a video, {SYNTHETIC!r}, cifar10:PATH or images:PATH"
_SYNTHETIC_KEYS = ("seed", "split")


def open_source(
    spec: str | Path,
    *,
    frames: int,
    size: int | tuple[int, int],
    mean: Triple,
    std: Triple,
    clips: int | None = None,
    views: tuple[int, int] = (1, 1),
    sampling: str = "dense",
    stride: int = 4,
    antialias: bool = True,
    seed: int = 0,
    root: Path | None = None,
    classes: Sequence[str] | None = None,
    threads: int = 1,
    animate: bool = False,
) -> Source:
    """The clips that a user named.

    Args:
        spec: "synthetic", "synthetic:seed=3", "synthetic:seed=3,split=train"; a folder of videos or of class folders;
            a list of `path label` lines; one video file; "cifar10:PATH" or "images:PATH" (see `open_pictures`).
        frames: frames per clip.
        size: pixels, a side or (height, width).
        mean, std: per channel, on pixels in [0, 1].
        clips: generated clips (1000 unless given), or videos at most (all unless given; evenly spaced).
        views: (clips per video, crops per clip); real videos only.
        sampling, stride: see `Sampling`; real videos only.
        antialias: see `Views`.
        seed: of the generated clips, unless ``spec`` has one.
        root, classes: see `read_list`.
        threads: decoding threads.
        animate: turn pictures into clips.

    Raises:
        DataError: nothing usable is there; the message is one line.
        ValueError: a setting out of range.
    """
    height_width = (size, size) if isinstance(size, int) else size
    if not str(spec).strip():
        # An empty word, e.g. of a variable that is not set, would be the current folder.
        raise DataError(f"no data was named: {str(spec)!r} (allowed: {ALLOWED})")
    if str(spec).partition(":")[0] == SYNTHETIC and not animate:
        return _synthetic(str(spec), frames, height_width, mean, std, clips, views, seed)
    if is_pictures(str(spec)):
        shape = Views(height_width, mean, std, views[1], antialias)
        return open_pictures(str(spec), shape, frames=frames, clips=clips, seed=seed, animate=animate, times=views[0])
    if animate:
        raise DataError(f"--animate is for pictures: cifar10:PATH or images:PATH, given {str(spec)!r}")
    listing = thinned(find_videos(Path(spec), root=root, classes=classes), clips)
    return VideoSource(
        listing,
        Sampling(frames, sampling, stride, views[0]),
        Views(height_width, mean, std, views[1], antialias),
        name=Path(spec).name or str(spec),
        threads=threads,
    )


def find_videos(path: Path, *, root: Path | None = None, classes: Sequence[str] | None = None) -> Listing:
    """The videos of a folder, of a list, or the one file, without opening any.

    Raises:
        DataError: missing, a folder without videos, a wrong list, or neither by its suffix.
    """
    if path.is_dir():
        return scan_folder(path)
    if not path.exists():
        raise DataError(f"no such file or folder: {path}{close_by(path, (SYNTHETIC, *SOURCES))} (allowed: {ALLOWED})")
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return read_list(path, root=root, classes=classes)
    if suffix in VIDEO_SUFFIXES:
        return Listing((Item(path, path.name),), None)
    allowed = f"lists {' '.join(sorted(LIST_SUFFIXES))}; videos {' '.join(sorted(VIDEO_SUFFIXES))}"
    raise DataError(f"unknown kind of file: {path} (allowed: a folder; {allowed})")


def _synthetic(
    spec: str,
    frames: int,
    size: tuple[int, int],
    mean: Triple,
    std: Triple,
    clips: int | None,
    views: tuple[int, int],
    seed: int,
) -> Source:
    from tokred.data.synthetic import MEAN, STD, SyntheticActions

    settings = {"seed": str(seed), "split": "test"}
    for part in filter(None, spec.partition(":")[2].split(",")):
        key, equals, value = (text.strip() for text in part.partition("="))
        if key not in _SYNTHETIC_KEYS or not equals or (key == "seed" and not value.lstrip("-").isdecimal()):
            raise DataError(f"{spec!r}: {part.strip()!r} is not understood (allowed: seed=NUMBER, split=train|test)")
        settings[key] = value
    if size[0] != size[1]:
        raise DataError(f"{SYNTHETIC} clips are square, {size[0]}x{size[1]} pixels were asked for")
    source = SyntheticActions(
        clips=SYNTHETIC_CLIPS if clips is None else clips,
        seed=int(settings["seed"]),
        split=settings["split"],
        size=size[0],
        frames=frames,
    )
    if views != (1, 1):
        source.notes.append(f"views = {views[0]}x{views[1]} have no meaning for generated clips: one view each")
    own = ((MEAN,) * 3, (STD,) * 3)
    return source if (tuple(mean), tuple(std)) == own else Renormalised(source, *own, mean, std)


class Renormalised:
    """A source whose clips are brought from one normalisation to another.

    Args:
        source: the clips.
        mean, std: how they are normalised, per channel.
        new_mean, new_std: how they shall be.
    """

    def __init__(self, source: Source, mean: Triple, std: Triple, new_mean: Triple, new_std: Triple) -> None:
        self.name: str = source.name
        self.label_sets: tuple[LabelSet, ...] = source.label_sets
        self.failures: list[Failure] = source.failures
        self.notes: list[str] = source.notes
        self._source = source
        old, old_scale, new, scale = (torch.tensor(v).view(1, 3, 1, 1, 1) for v in (mean, std, new_mean, new_std))
        self._factor: Tensor = old_scale / scale
        self._shift: Tensor = (old - new) / scale
        self._settings = repr((tuple(new_mean), tuple(new_std)))

    def __len__(self) -> int:
        """Number of items."""
        return len(self._source)

    def within(self, items: range) -> Renormalised:
        """Only these items; see ``Divisible``."""
        return wrapped_part(self, items)

    def digest(self) -> str:
        """The digest of the source and the new normalisation."""
        return hashlib.sha256((self._source.digest() + self._settings).encode()).hexdigest()[:SHORT]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The batches of the source, normalised again."""
        for batch in self._source.batches(batch_size):
            yield replace(batch, clips=batch.clips * self._factor + self._shift)
