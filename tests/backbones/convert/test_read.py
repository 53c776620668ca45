from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tokred.backbones.convert.errors import CheckpointError
from tokred.backbones.convert.read import read_file

WEIGHTS = {"a.weight": torch.arange(4.0), "a.bias": torch.ones(1)}


def write(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refused(path: Path, pattern: str) -> str:
    with pytest.raises(CheckpointError, match=pattern) as caught:
        read_file(path)
    message = str(caught.value)
    assert message.startswith(str(path)), "the file is named first"
    assert "\n" not in message
    return message


@pytest.mark.parametrize("container", ["model", "module", "state_dict", ""])
@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "legacy"])
def test_weights_are_found_in_every_container(tmp_path: Path, container: str, old_format: bool) -> None:
    extra = {"epoch": 3, "optimizer": {"state": {}}, "args": argparse.Namespace(model="vit", lr=1e-3)}
    content = {container: WEIGHTS, **extra} if container else WEIGHTS
    path = write(tmp_path / "w.pth", content, _use_new_zipfile_serialization=not old_format)
    raw = read_file(path)
    assert raw.container == container
    assert raw.notes == ()
    assert {name: tensor.tolist() for name, tensor in raw.tensors.items()} == {"a.weight": [0, 1, 2, 3], "a.bias": [1]}


def test_model_is_looked_for_before_module(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {"module": {"x": torch.zeros(1)}, "model": WEIGHTS})
    assert read_file(path).container == "model"


def test_entries_that_are_no_tensors_are_left_aside_and_noted(tmp_path: Path) -> None:
    raw = read_file(write(tmp_path / "w.pth", {**WEIGHTS, "epoch": 3, "args": argparse.Namespace()}))
    assert set(raw.tensors) == set(WEIGHTS)
    assert raw.notes == ("not tensors, left aside: epoch, args",)


def test_safetensors_are_told_by_their_content_and_keep_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    save_file(WEIGHTS, str(path), metadata={"source": "here"})
    raw = read_file(path)
    assert raw.metadata["source"] == "here"
    assert torch.equal(raw.tensors["a.weight"], WEIGHTS["a.weight"])


class Intruder:
    """A pickle of this would create a file while it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.target,))


@pytest.mark.parametrize("old_format", [False, True], ids=["zip", "legacy"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, old_format: bool) -> None:
    target = tmp_path / "was_here"
    content = {"model": WEIGHTS, "extra": Intruder(target)}
    path = write(tmp_path / "evil.pth", content, _use_new_zipfile_serialization=not old_format)
    message = refused(path, r"refused, because its pickle wants ")
    assert "torch.save(model.state_dict()" in message, "it says how to convert the file"
    assert not target.exists()


def test_the_wanted_global_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {"model": WEIGHTS, "args": pytest.Config})
    refused(path, r"its pickle wants _pytest\.config\.Config, and loading it could run foreign code")


def test_a_plain_pickle_is_refused_and_does_not_run(tmp_path: Path) -> None:
    target = tmp_path / "was_here"
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps(Intruder(target)))
    refused(path, "refused|damaged")
    assert not target.exists()


def test_what_is_allowed_while_loading_is_not_allowed_afterwards(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {"model": WEIGHTS, "args": argparse.Namespace()})
    read_file(path)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(path, weights_only=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.pth", "no such file")


def test_a_folder_is_refused_with_the_name_for_folders(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder, not a checkpoint file .*hf/")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    refused(tmp_path / "w.pth", "is empty")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"hello, I am text", r"it begins with b'hello, I'"),
        (b"\x89PNG\r\n\x1a\n", "it begins with"),
    ],
)
def test_other_files_are_refused_with_what_they_are(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    refused(tmp_path / "w.pth", f"is no checkpoint: .*{reason}.*; torch and safetensors files are read")


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, keep: float) -> None:
    path = tmp_path / "w.bin"
    weights = {f"layer.{i}": torch.randn(40, 10) for i in range(6)}
    if kind == "safetensors":
        save_file(weights, str(path))
    else:
        write(path, weights, _use_new_zipfile_serialization=kind == "zip")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    refused(path, "damaged")


def test_a_zip_archive_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        archive.writestr("letter.txt", "hello")
    refused(tmp_path / "w.zip", "truncated or damaged")


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.pth", {"model": {"epoch": 1}}), "holds no tensors .* keys: epoch")
    refused(write(tmp_path / "b.pth", {"epoch": 1, "lr": 0.1}), "holds no tensors .* keys: epoch, lr")
    refused(write(tmp_path / "c.pth", {}), "holds no tensors .* keys: none")
    save_file({}, str(tmp_path / "d.safetensors"))
    refused(tmp_path / "d.safetensors", "holds no tensors")


def test_something_else_than_a_dict_is_refused(tmp_path: Path) -> None:
    refused(write(tmp_path / "a.pth", torch.zeros(3)), "holds a Tensor, not a dict of tensors")
    refused(write(tmp_path / "b.pth", [torch.zeros(3)]), "holds a list, not a dict of tensors")
