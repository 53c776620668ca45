"""CIFAR-10 reads the same from every form in which it comes."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokred.data.lists import DataError
from tokred.data.pictures import CIFAR10_CLASSES, read_cifar10

LABELS = [3, 0, 9, 9, 1]


def planes(pixels: Callable, number: int) -> bytes:
    """All red, all green, all blue."""
    return pixels(number).transpose(2, 0, 1).tobytes()


def write_binary(folder: Path, pixels: Callable, names: tuple[str, ...] = ("test_batch",)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    records = b"".join(bytes([label]) + planes(pixels, number) for number, label in enumerate(LABELS))
    for name in names:
        (folder / f"{name}.bin").write_bytes(records)


def write_python(folder: Path, pixels: Callable, names: tuple[str, ...] = ("test_batch",)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.stack([np.frombuffer(planes(pixels, number), dtype=np.uint8) for number in range(len(LABELS))])
    for name in names:
        (folder / name).write_bytes(pickle.dumps({b"data": rows, b"labels": LABELS}, protocol=2))


def check(path: Path, pixels: Callable) -> None:
    found = read_cifar10(path)
    assert found.classes == CIFAR10_CLASSES
    assert found.labels == LABELS
    assert all((found.pixels(i) == pixels(i)).all() for i in range(len(LABELS)))


@pytest.mark.parametrize(
    ("write", "inside"), [(write_binary, "cifar-10-batches-bin"), (write_python, "cifar-10-batches-py")]
)
def test_folders_and_archives_give_the_same_pictures(
    tmp_path: Path, pixels: Callable, write: Callable, inside: str
) -> None:
    write(tmp_path / "a" / inside, pixels)
    check(tmp_path / "a", pixels)
    check(tmp_path / "a" / inside, pixels)
    archive = tmp_path / "b" / ("cifar-10-binary.tar.gz" if inside.endswith("bin") else "cifar-10-python.tar.gz")
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "a" / inside, inside)
    check(archive, pixels)
    check(archive.parent, pixels)
    assert sorted(entry.name for entry in archive.parent.iterdir()) == [archive.name], "nothing is unpacked"


def test_a_packed_file_gives_the_same_pictures(tmp_path: Path, pixels: Callable, write_npz: Callable) -> None:
    write_npz(tmp_path / "test.npz", LABELS, CIFAR10_CLASSES)
    check(tmp_path, pixels)
    check(tmp_path / "test.npz", pixels)


def test_classes_in_another_order_are_put_into_the_usual_one(tmp_path: Path, write_npz: Callable) -> None:
    turned = CIFAR10_CLASSES[::-1]
    write_npz(tmp_path / "test.npz", LABELS, turned)
    found = read_cifar10(tmp_path)
    assert [CIFAR10_CLASSES[label] for label in found.labels] == [turned[label] for label in LABELS]


def test_training_pictures_are_those_of_five_batches(tmp_path: Path, pixels: Callable) -> None:
    names = tuple(f"data_batch_{number}" for number in range(1, 6))
    write_binary(tmp_path, pixels, names)
    found = read_cifar10(tmp_path, "train")
    assert found.labels == LABELS * 5
    assert found.names[7] == "data_batch_2.bin #2"
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin is missing"):
        read_cifar10(tmp_path, "train")


def test_other_files_are_refused_with_the_reason(tmp_path: Path, pixels: Callable, write_npz: Callable) -> None:
    with pytest.raises(DataError, match=r"no CIFAR-10 in .*cifar-10-batches-bin.*download=yes"):
        read_cifar10(tmp_path)
    with pytest.raises(DataError, match="split = 'val' is not one of train, test"):
        read_cifar10(tmp_path, "val")
    write_npz(tmp_path / "test.npz", [0, 1], ("tench", "church"))
    with pytest.raises(DataError, match="not CIFAR-10: its classes are tench, church"):
        read_cifar10(tmp_path)
    write_binary(tmp_path / "bin", pixels)
    file = tmp_path / "bin" / "test_batch.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="no multiple of 3073"):
        read_cifar10(tmp_path / "bin")
    file.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(DataError, match="holds label 10"):
        read_cifar10(tmp_path / "bin")
    (tmp_path / "cifar.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        read_cifar10(tmp_path / "cifar.tar.gz")


def test_download_fetches_where_nothing_is_and_is_read_by_us(
    tmp_path: Path, pixels: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils = pytest.importorskip("torchvision.datasets.utils")
    asked: list[str] = []

    def fetch(url: str, root: str, filename: str, md5: str) -> None:
        asked.append(url)
        assert len(md5) == 32
        write_python(Path(root) / "cifar-10-batches-py", pixels)

    monkeypatch.setattr(utils, "download_and_extract_archive", fetch)
    for _ in range(2):
        assert read_cifar10(tmp_path / "new", download=True).labels == LABELS
    assert len(asked) == 1
    assert asked[0].endswith("cifar-10-python.tar.gz")

    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "download_and_extract_archive", offline)
    with pytest.raises(DataError, match=r"cannot be fetched from http.*no route to host"):
        read_cifar10(tmp_path / "other", download=True)
