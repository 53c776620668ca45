"""Pictures packed into an npz file: read back, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokred.data.lists import DataError
from tokred.data.pictures import PictureError
from tokred.data.pictures.packed import read_packed


def test_what_was_packed_is_read(tmp_path: Path, write_npz: Callable[..., Path], pixels: Callable) -> None:
    found = read_packed(write_npz(tmp_path / "some.npz", [1, 0, 1], ("a", "b")), "mine")
    assert (found.name, found.labels, found.classes) == ("mine", [1, 0, 1], ("a", "b"))
    assert found.names[2] == "some.npz #2"
    assert all((found.pixels(i) == pixels(i)).all() for i in range(3))
    named = write_npz(tmp_path / "named.npz", [0, 1], ("a", "b"), filename=np.array(["x.png", "y.png"]))
    assert read_packed(named, "mine").names == ["x.png", "y.png"]


def test_a_broken_picture_breaks_no_other(tmp_path: Path, write_npz: Callable[..., Path], pixels: Callable) -> None:
    file = write_npz(tmp_path / "some.npz", [0, 1, 0], ("a", "b"))
    with np.load(file) as content:
        arrays = dict(content)
    arrays["jpeg"][arrays["offset"][1] : arrays["offset"][1] + 8] = 0
    np.savez(file, **arrays)
    found = read_packed(file, "mine")
    with pytest.raises(PictureError, match="no picture"):
        found.pixels(1)
    assert (found.pixels(2) == pixels(2)).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"jpeg": None}, "holds no jpeg"),
        ({"label": None, "classes": None}, "holds no label, classes"),
        ({"jpeg": np.zeros(5)}, "jpeg is float64"),
        ({"offset": np.array([0.0, 1.0, 2.0])}, "offset is float64"),
        ({"offset": np.array([0, 9, 4])}, "do not rise"),
        ({"offset": np.array([0, 4, 10**9])}, "do not rise"),
        ({"offset": np.array([0, 4])}, "2 offsets need one label less, there are 2"),
        ({"label": np.array([0, 7])}, "label 7 has no name: there are 2 classes"),
        ({"label": np.array([0, -1])}, "has no name"),
        ({"classes": np.array([1, 2])}, "classes is int64"),
        ({"filename": np.array(["one"])}, "1 file names for 2 pictures"),
        ({"classes": np.array(["a", None], dtype=object)}, "cannot be read as npz: Object arrays"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    tmp_path: Path, write_npz: Callable[..., Path], changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        read_packed(write_npz(tmp_path / "some.npz", [0, 1], ("a", "b"), **changes), "mine")


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.npz"
    for content in (b"", b"text", b"PK\x03\x04 and no more"):
        file.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as npz"):
            read_packed(file, "mine")
