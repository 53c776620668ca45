"""Batches of the Python version: arrays are read, and nothing that a pickle could run is."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from tokred.data.lists import DataError
from tokred.data.pictures.unpickle import read_batch

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
LABELS = [4, 0, 9]


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def batch(**changes: object) -> dict[bytes, object]:
    content: dict[str, object] = {"data": PIXELS, "labels": LABELS, "filenames": [b"a", b"b", b"c"]}
    return {key.encode(): value for key, value in (content | changes).items()}


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_is_read(protocol: int) -> None:
    pixels, labels = read_batch(pickle.dumps(batch(), protocol=protocol), "data_batch_1")
    assert (pixels == PIXELS).all()
    assert labels.tolist() == LABELS


def test_the_module_name_of_old_numpy_is_read() -> None:
    data = pickle.dumps(batch(), protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert (read_batch(data, "data_batch_1")[0] == PIXELS).all()


def test_nothing_is_run(tmp_path: Path) -> None:
    data = pickle.dumps(batch(extra=Evil(tmp_path / "made")))
    with pytest.raises(DataError, match=r"data_batch_1: refused, because its pickle wants \w+\.mkdir"):
        read_batch(data, "data_batch_1")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "no two-dimensional array 'data'"),
        (batch(data=b"bytes"), "no two-dimensional array 'data'"),
        (batch(data=PIXELS[0]), "no two-dimensional array 'data'"),
        (batch(data=PIXELS.astype(np.float32)), "holds an array of 'f4'"),
        (batch(data=np.array([[None]], dtype=object)), "holds an array of 'O8'"),
        (batch(labels="4"), "no list 'labels'"),
        (batch(labels=[1.0, 2.0, 3.0]), "no list 'labels'"),
    ],
)
def test_what_is_no_batch_is_refused(content: object, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_batch(pickle.dumps(content), "data_batch_1")


def test_damaged_pickles_are_refused() -> None:
    whole = pickle.dumps(batch(), protocol=2)
    for data in (b"", b"text", whole[: len(whole) // 2], whole[:-1]):
        with pytest.raises(DataError, match="data_batch_1 is truncated or no batch"):
            read_batch(data, "data_batch_1")


def test_an_array_larger_than_its_bytes_is_refused() -> None:
    data = pickle.dumps(batch(), protocol=2)
    shape = pickle.dumps(PIXELS.shape, protocol=2)[2:-3]
    assert shape in data
    with pytest.raises(DataError, match="truncated or no batch"):
        read_batch(data.replace(shape, pickle.dumps((3, 30_000), protocol=2)[2:-3]), "data_batch_1")
