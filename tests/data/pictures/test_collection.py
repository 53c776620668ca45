"""Pictures decode to what was encoded, and what does not decode says why."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tokred.data.lists import DataError
from tokred.data.pictures import CLASS, PictureError, Pictures, decode
from tokred.data.pictures import collection as module


def picture(mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def file_of(image: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def collection(count: int, broken: tuple[int, ...] = ()) -> Pictures:
    def content(index: int) -> bytes:
        return b"text" if index in broken else file_of(picture(size=(4 + index, 4)))

    return Pictures("some", [str(i) for i in range(count)], [i % 2 for i in range(count)], ("a", "b"), content)


def test_what_was_encoded_is_decoded() -> None:
    image = picture()
    assert (decode(file_of(image)) == np.array(image)).all()
    assert decode(file_of(image, "JPEG")).shape == (4, 6, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_every_mode_becomes_three_channels_of_bytes(mode: str) -> None:
    found = decode(file_of(picture(mode), "TIFF"))
    assert found.shape == (4, 6, 3)
    assert found.dtype == np.uint8


def test_pictures_are_turned_as_the_camera_says() -> None:
    image = picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    found = decode(file_of(image, exif=exif))
    assert (found == np.rot90(np.array(image), -1)).all()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    data = file_of(first, "GIF", save_all=True, append_images=[second])
    assert decode(data)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"no picture", "no picture in a format"),
        (lambda: file_of(picture(size=(64, 64)))[:2000], "truncated or damaged"),
        (lambda: file_of(Image.fromarray(np.full((4, 4), 3000, dtype=np.uint16))), "more than eight bits"),
    ],
)
def test_what_is_no_usable_picture_says_why(make: Callable[[], bytes], reason: str) -> None:
    with pytest.raises(PictureError, match=reason):
        decode(make())


def test_a_small_file_that_unpacks_to_a_huge_picture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 20)
    with pytest.raises(PictureError, match="6x4 pixels"):
        decode(file_of(picture()))


def test_classes_are_a_label_set() -> None:
    assert [(s.name, s.classes, s.offset) for s in collection(4).label_sets] == [(CLASS, ("a", "b"), 0)]
    assert Pictures("none", ["x"], (), (), lambda index: b"").label_sets == ()


def test_thinned_pictures_are_spread_evenly_and_keep_their_labels() -> None:
    found = collection(9).thinned(3)
    assert found.names == ["0", "3", "6"]
    assert found.labels == [0, 1, 0]
    assert [found.pixels(i).shape[1] for i in range(3)] == [4, 7, 10]
    assert found.notes == ("3 of 9 pictures, evenly spaced",)
    whole = collection(3)
    assert whole.thinned(None) is whole
    assert whole.thinned(5) is whole
    with pytest.raises(DataError, match="clips = 0"):
        whole.thinned(0)


def test_the_hash_of_a_picture_depends_on_content_and_label() -> None:
    one = collection(4)
    assert one.sha256(0) == collection(4).sha256(0)
    assert len({one.sha256(i) for i in range(4)}) == 4
    other = Pictures("some", one.names, [1, 1, 1, 1], one.classes, one.content)
    assert one.sha256(0) != other.sha256(0)
    assert one.sha256(1) == other.sha256(1)
