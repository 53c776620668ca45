from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def _pixels(seed: int, height: int = 32, width: int = 32) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _encoded(picture: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def pixels() -> Callable[..., Pixels]:
    """A picture (H, W, 3) by its seed; no two are alike."""
    return _pixels


@pytest.fixture(scope="session")
def encoded() -> Callable[[Pixels], bytes]:
    """The bytes of a picture file that loses nothing."""
    return _encoded


@pytest.fixture
def write_npz() -> Callable[..., Path]:
    """Writes pictures packed into an npz file; further arguments replace arrays, None leaves one out."""

    def write(path: Path, labels: list[int], classes: tuple[str, ...], /, **changes: object) -> Path:
        files = [_encoded(_pixels(number)) for number in range(len(labels))]
        arrays = {
            "jpeg": np.frombuffer(b"".join(files), dtype=np.uint8),
            "offset": np.cumsum([0, *map(len, files)]),
            "label": np.array(labels, dtype=np.uint8),
            "classes": np.array(classes),
        } | changes
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
        return path

    return write


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Six pictures of 48 x 40 in two class folders."""
    for number in range(6):
        place = tmp_path / "pictures" / ("cats", "dogs")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_encoded(_pixels(number, 40, 48)))
    return tmp_path / "pictures"
