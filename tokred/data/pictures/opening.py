"""From "cifar10:PATH" and "images:PATH" to a source."""

from __future__ import annotations

import difflib
from pathlib import Path

from tokred.data.lists import DataError
from tokred.data.pictures.animate import KINDS, AnimatedSource
from tokred.data.pictures.cifar import read_cifar10
from tokred.data.pictures.finding import close_by, find_pictures
from tokred.data.pictures.stills import PictureSource
from tokred.data.views import Views

SOURCES = ("cifar10", "images")
_VALUES = {"split": ("train", "test"), "download": ("yes", "no"), "kind": (*KINDS, "both"), "seed": ()}
_KEYS = {"cifar10": ("split", "download", "kind", "seed"), "images": ("split", "kind", "seed")}


def is_pictures(spec: str) -> bool:
    """Whether a user's words for a data set mean pictures."""
    name, colon, _ = spec.partition(":")
    return name in SOURCES and (bool(colon) or not Path(spec).exists())


def open_pictures(
    spec: str,
    views: Views,
    *,
    frames: int,
    clips: int | None = None,
    seed: int = 0,
    animate: bool = False,
    times: int = 1,
) -> PictureSource:
    """Pictures as a model takes them: still for image models, animated for video models.

    Args:
        spec: "cifar10:PATH" (see ``read_cifar10``) or "images:PATH" (see ``find_pictures``), then perhaps, after
            commas, split=train|test (default test), seed=NUMBER and kind=camera|cutout|both of the animation, and for
            cifar10 download=yes.
        views: size, normalisation and crops.
        frames: frames per clip, 1 for an image model.
        clips: pictures at most, evenly spaced.
        seed: of the animation, unless ``spec`` has one.
        animate: turn pictures into clips.
        times: clips per item that were asked for; more than one have no meaning here, which is noted.
    Raises:
        DataError: nothing usable is there, or it is not what the model takes; the message is one line.
    """
    name, _, rest = spec.partition(":")
    place, settings = _settings(name, rest)
    if not place:
        raise DataError(f"{name} needs a place: {name}:PATH")
    path, split = Path(place), settings.get("split", "test")
    download = settings.get("download") == "yes"
    if not path.exists() and not download:
        fetch = f"; {name}:PATH,download=yes fetches it" if name == "cifar10" else ""
        raise DataError(f"no such file or folder: {path}{close_by(path)}{fetch}")
    if animate and frames < 2:
        raise DataError(f"--animate makes clips, this model takes single images: leave it out for {name}:{place}")
    if not animate and frames > 1:
        raise DataError(f"{name}:{place} holds single images, this model takes {frames} frames: add --animate")
    given = [key for key in ("seed", "kind") if key in settings]
    if given and not animate:
        raise DataError(f"{' and '.join(given)} belong to --animate, which is not given")
    found = read_cifar10(path, split, download=download) if name == "cifar10" else find_pictures(path, split)
    pictures = found.thinned(clips)
    if not animate:
        source = PictureSource(pictures, views)
    else:
        kind = settings.get("kind", "both")
        seed = int(settings.get("seed", seed))
        source = AnimatedSource(pictures, views, frames, seed, KINDS if kind == "both" else (kind,))
        if views.crops > 1:
            source.notes.append(f"{views.crops} crops have no meaning for animated pictures: one view each")
    if times > 1:
        source.notes.append(f"{times} clips per item have no meaning for pictures: one each")
    return source


def _settings(name: str, text: str) -> tuple[str, dict[str, str]]:
    """The path, and what follows it after commas; a comma in the path itself is left alone."""
    parts = text.split(",")
    found: dict[str, str] = {}
    while len(parts) > 1:
        key, equals, value = (piece.strip() for piece in parts[-1].partition("="))
        if not equals and Path(",".join(parts)).exists():
            break
        if key not in _KEYS[name]:
            close = difflib.get_close_matches(key, _KEYS[name], n=1)
            hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(_KEYS[name])}"
            raise DataError(f"{name}:...: {parts[-1].strip()!r} is not understood; {hint}")
        allowed = _VALUES[key]
        if (allowed and value not in allowed) or (not allowed and not value.isdecimal()):
            raise DataError(f"{name}:...: {key}={value} is not {key}={'|'.join(allowed) or 'NUMBER'}")
        found.setdefault(key, value)
        parts.pop()
    return ",".join(parts).strip(), found
