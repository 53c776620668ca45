"""CIFAR-10 from its standard files (binary or Python version, unpacked or not), or packed into npz files.

Format of the standard files: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import importlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tokred.data.lists import DataError
from tokred.data.pictures.collection import Pictures
from tokred.data.pictures.packed import read_packed
from tokred.data.pictures.unpickle import read_batch

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SIDE, CHANNELS = 32, 3
BYTES = CHANNELS * SIDE * SIDE
NAME = "CIFAR-10"

_BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_FOLDERS = (("cifar-10-batches-bin", ".bin"), ("cifar-10-batches-py", ""))
_ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
_LARGEST = 1 << 26  # bytes of a batch; the standard ones have 31 million

Batch = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Reader = Callable[[bytes, str], Batch]


def read_cifar10(path: Path, split: str = "test", *, download: bool = False) -> Pictures:
    """CIFAR-10 from a folder or file.

    Args:
        path: the folder with ``cifar-10-batches-bin`` or ``cifar-10-batches-py`` in it, either of these, the archive
            that they come in, or a folder with train.npz and test.npz (see ``read_packed``).
        split: "train" or "test".
        download: fetch the Python version into the folder by torchvision, where it is not there yet.
    Raises:
        DataError: nothing of that kind is there, or it is damaged; the message is one line.
    """
    if split not in _BATCHES:
        raise DataError(f"split = {split!r} is not one of {', '.join(_BATCHES)}")
    if download:
        _download(path)
    found = _packed(path, split) or _standard(path, split)
    if found is None:
        allowed = ", ".join([*(name for name, _ in _FOLDERS), *_ARCHIVES, "train.npz and test.npz"])
        raise DataError(f"no CIFAR-10 in {path} (looked for: {allowed}; cifar10:{path},download=yes fetches it)")
    return found


def _packed(path: Path, split: str) -> Pictures | None:
    file = path if path.suffix == ".npz" else path / f"{split}.npz"
    if not file.is_file():
        return None
    packed = read_packed(file, NAME)
    if set(packed.classes) != set(CIFAR10_CLASSES):
        raise DataError(f"{file} is not CIFAR-10: its classes are {', '.join(packed.classes[:12]) or 'missing'}")
    order = [CIFAR10_CLASSES.index(name) for name in packed.classes]
    labels = [order[label] for label in packed.labels]
    return Pictures(NAME, packed.names, labels, CIFAR10_CLASSES, packed.content, (f"packed in {file.name}",))


def _standard(path: Path, split: str) -> Pictures | None:
    for folder, suffix in _FOLDERS:
        names = tuple(name + suffix for name in _BATCHES[split])
        for place in (path / folder, path):
            if (place / names[0]).is_file():
                return _joined(_from_folder(place, names), _binary if suffix else read_batch, folder)
    for file in (path, *(path / name for name in _ARCHIVES)):
        if file.is_file() and file.name.endswith((".tar.gz", ".tgz", ".tar")):
            found = _from_archive(file, split)
            if found is not None:
                return found
    return None


def _from_folder(folder: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        file = folder / name
        if not file.is_file():
            raise DataError(f"{file} is missing; the others of its split are {', '.join(names)}")
        if file.stat().st_size > _LARGEST:
            raise DataError(f"{file} has {file.stat().st_size} bytes, more than a batch of CIFAR-10 can have")
        yield name, file.read_bytes()


def _from_archive(file: Path, split: str) -> Pictures | None:
    """Read from inside the archive; nothing is unpacked to the disk."""
    try:
        with tarfile.open(file) as archive:
            members = {Path(member.name).name: member for member in archive.getmembers() if member.isfile()}
            for folder, suffix in _FOLDERS:
                names = tuple(name + suffix for name in _BATCHES[split])
                if all(name in members and members[name].size <= _LARGEST for name in names):
                    streams = ((name, archive.extractfile(members[name])) for name in names)
                    content = [(name, stream.read()) for name, stream in streams if stream is not None]
                    return _joined(iter(content), _binary if suffix else read_batch, f"{folder} in {file.name}")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an archive: {error}") from error
    return None


def _joined(batches: Iterator[tuple[str, bytes]], read: Reader, origin: str) -> Pictures:
    pixels, labels, names = [], [], []
    for name, data in batches:
        planes, numbers = read(data, name)
        if planes.shape != (len(numbers), BYTES) or len(numbers) == 0:
            raise DataError(f"{name} holds {len(numbers)} labels for pixels of shape {planes.shape}")
        if numbers.min() < 0 or numbers.max() >= len(CIFAR10_CLASSES):
            raise DataError(f"{name} holds label {numbers.max()}; allowed: 0 to {len(CIFAR10_CLASSES) - 1}")
        pixels.append(planes.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1))
        labels += numbers.tolist()
        names += [f"{name} #{number}" for number in range(len(numbers))]
    pictures = np.concatenate(pixels)
    return Pictures(NAME, names, labels, CIFAR10_CLASSES, lambda index: pictures[index], (f"read from {origin}",))


def _binary(data: bytes, name: str) -> Batch:
    """Records of one label byte and 3072 pixel bytes: all red, all green, all blue, row by row."""
    if len(data) % (BYTES + 1):
        raise DataError(f"{name} has {len(data)} bytes, no multiple of {BYTES + 1}: it is truncated or another file")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, BYTES + 1)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _download(path: Path) -> None:
    """The Python version, checked against the hash that torchvision knows, and unpickled by us."""
    folder = _FOLDERS[1][0]
    if (path / folder).is_dir():
        return
    try:
        known = importlib.import_module("torchvision.datasets").CIFAR10
        fetch = importlib.import_module("torchvision.datasets.utils").download_and_extract_archive
    except ImportError as error:
        raise DataError(f"download=yes needs torchvision: pip install torchvision ({error})") from error
    try:
        fetch(known.url, str(path), filename=known.filename, md5=known.tgz_md5)
    except (OSError, RuntimeError) as error:
        raise DataError(f"CIFAR-10 cannot be fetched from {known.url}: {' '.join(str(error).split())}") from error
