"""Some labelled pictures, decoded when their turn comes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokred.data.decode import Picture
from tokred.data.lists import DataError
from tokred.data.source import LabelSet

CLASS = "class"
MAX_PIXELS = 1 << 26  # 8192 x 8192; a small file can unpack to any size
_DEEP = ("I", "F")  # modes of more than eight bits, which Pillow would clip


class PictureError(ValueError):
    """A picture that cannot be used; the message is the reason, in one line."""


@dataclass(frozen=True)
class Pictures:
    """Pictures in a fixed order.

    Args:
        name: for reports.
        names: one per picture.
        labels: class number per picture; empty without labels.
        classes: class names; empty without labels.
        content: a picture by its number: pixels (H, W, 3) uint8, or an encoded file. Raises PictureError.
        notes: how they were found, what was left out.
    """

    name: str
    names: Sequence[str]
    labels: Sequence[int]
    classes: tuple[str, ...]
    content: Callable[[int], Picture | bytes]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Number of pictures, unusable ones included."""
        return len(self.names)

    @property
    def label_sets(self) -> tuple[LabelSet, ...]:
        """The classes as a task; none without labels."""
        return (LabelSet(CLASS, self.classes),) if self.classes else ()

    def pixels(self, index: int) -> Picture:
        """(H, W, 3) uint8.

        Raises:
            PictureError: the file cannot be read or is no picture.
        """
        content = self.content(index)
        return decode(content) if isinstance(content, bytes) else content

    def sha256(self, index: int) -> str:
        """Hash of a picture's content and label, or in words why there is none."""
        try:
            content = self.content(index)
        except PictureError as error:
            return f"unreadable: {error}"
        data = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
        label = self.labels[index] if self.labels else None
        return f"{hashlib.sha256(data).hexdigest()} {label}"

    def chosen(self, places: Sequence[int], note: str) -> Pictures:
        """Some of the pictures, in the given order."""
        content = self.content
        return replace(
            self,
            names=[self.names[place] for place in places],
            labels=[self.labels[place] for place in places] if self.labels else (),
            content=lambda index: content(places[index]),
            notes=(*self.notes, note) if note else self.notes,
        )

    def thinned(self, count: int | None) -> Pictures:
        """At most ``count`` pictures, evenly spaced (so over the classes too), with a note."""
        total = len(self)
        if count is None or count >= total:
            return self
        if count < 1:
            raise DataError(f"clips = {count} must be at least 1")
        places = [place * total // count for place in range(count)]
        return self.chosen(places, f"{count} of {total} pictures, evenly spaced")


def decode(data: bytes) -> Picture:
    """An encoded picture to (H, W, 3) uint8, turned as its camera says; of an animation the first frame.

    Raises:
        PictureError: no picture, truncated, too large, or more than eight bits per channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise PictureError("is empty")
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise PictureError(f"{width}x{height} pixels are more than the {MAX_PIXELS >> 20} million allowed")
            if image.mode.startswith(_DEEP):
                raise PictureError(f"mode {image.mode} has more than eight bits per channel")
            turned = ImageOps.exif_transpose(image)
            return np.array(turned.convert("RGB"))
    except UnidentifiedImageError:
        raise PictureError("is no picture in a format that Pillow reads") from None
    except PictureError:
        raise
    except Exception as error:  # a damaged file makes the decoders fail in any way
        raise PictureError(
            f"is truncated or damaged: {' '.join(str(error).split()) or type(error).__name__}"
        ) from error
