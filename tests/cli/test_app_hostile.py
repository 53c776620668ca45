"""Words, files and disks that nobody plans for: exit status 2 and one line, and nothing is left half done."""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tokred.run import store

Call = Callable[..., tuple[int, str, str]]
SMALL = ("compare", "--clips", 2, "--timing", 0, "--reducers", "grid:keep=0.5")


class Runs:
    """Runs a command when it is unpickled, if anybody lets it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("foreign-code-ran",)


@pytest.fixture(autouse=True)
def _room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder full of files that are not what their names say."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty").touch()
    Path("bytes").write_bytes(bytes(range(256)) * 8)
    Path("dangling").symlink_to("nowhere")
    Path("truncated.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json" + b"x" * 40)
    Path("huge_header.safetensors").write_bytes(b"\xff" * 64)
    Path("not_a_zip.pth").write_bytes(b"PK\x03\x04 and no more")
    Path("pickle.pth").write_bytes(pickle.dumps(Runs()))
    torch.save({"model": Runs()}, "code.pth")
    torch.save([1, 2], "list.pth")
    torch.save({"a": torch.zeros(1)}, "other.pth")
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00a: [")
    Path("list.yaml").write_text("- 1\n- 2\n")
    Path("words.yaml").write_text("just words")
    Path("code.yaml").write_text("!!python/object/apply:os.mkdir ['foreign-code-ran']\n")
    Path("missing.txt").write_text("no_such.mp4 0\nother.mp4 1\n")
    Path("wrong.txt").write_text("one two three\n5\n")
    Path("nul.txt").write_bytes(b"a\0b 1\n")
    Path("syntax.py").write_text("def (")
    Path("stops.py").write_text("import sys; sys.exit(3)")
    Path("raises.py").write_text("raise RuntimeError('two\\nlines')")
    Path("nothing.py").write_text("x = 1")


CHECKPOINTS = [
    *("folder", "empty", "bytes", "dangling", "truncated.safetensors", "huge_header.safetensors", "not_a_zip.pth"),
    *("pickle.pth", "code.pth", "list.pth", "other.pth"),
]
DATA = [
    *("", " ", "folder", "empty", "bytes", "dangling", "missing.txt", "wrong.txt", "nul.txt", "images:", "cifar10:"),
    *("images:nowhere", "images:bytes", "cifar10:folder", "synthetic:seed=x", "synthetic:seed=1.5"),
]
REDUCERS = [
    *("syntax.py:X", "stops.py:X", "raises.py:X", "nothing.py:X", "folder:X", "folder.py:X", "os.path:join", ":", "+"),
    *("grid:keep", "grid:=3", "grid:keep=0.5,keep=0.5", "grid:keep=[0.5", "grid+", "sta:r=nan", "grid:keep=true"),
    *("none:x=1", "sta:order=", "GRID:keep=0.5", "sta:r=1e3", "fewer_frames+lower_resolution"),
]
OTHERS = [
    *(
        ("train", file)
        for file in ("binary.yaml", "list.yaml", "words.yaml", "code.yaml", "folder", "empty", "dangling")
    ),
    *(("stream", file) for file in ("folder", "dangling", "nowhere.mp4")),
    *(("parity", folder) for folder in ("folder", "dangling")),
    *(("report", run) for run in ("folder", "bytes", "empty", "dangling")),
    *(("check", spec) for spec in ("nope", "syntax.py:X", "stops.py:X", "nothing.py:X", "folder")),
    ("stream", "bytes", "--reducer", "sta:r=2"),
    ("stream", "bytes", "--out", "empty"),
    ("check", "grid", "--only", "check_nothing"),
    ("check", "grid", "--backbone", "moon"),
    *(
        ("profile", "--backbone", name)
        for name in ("", "bytes", "hf/nowhere", "hf/folder", "timm/nope", "timm/", "hf/")
    ),
    *(("profile", "--budget", value) for value in ("0", "nan", "half")),
    *(("profile", "--device", value) for value in ("", "meta", "cpu:x")),
    *(("profile", "--num-classes", value) for value in ("0", "1e9", "-1")),
    *(("compare", "--budgets", value) for value in ("", "0", "nan", "0.5,,")),
    *(("compare", "--views", value) for value in ("", "0x1", "1x1x1", "1x2")),
    *(("compare", "--clips", value) for value in ("1e3", "\u00b2", "", "-1")),
    *(("compare", "--timing", value) for value in ("nan", "inf", "")),
]


def refused(tokred: Call, *words: object) -> str:
    """The one line of a command that is refused."""
    status, out, err = tokred(*words)
    lines = [line for line in err.splitlines() if line.startswith("tokred: ")]
    assert (status, len(lines)) == (2, 1), (status, out, err)
    assert "Traceback" not in err
    assert not Path("foreign-code-ran").exists()
    return lines[0]


@pytest.mark.parametrize("file", CHECKPOINTS)
def test_checkpoints_that_are_none(tokred: Call, file: str) -> None:
    assert file in refused(tokred, *SMALL, "--checkpoint", file)


@pytest.mark.parametrize("name", DATA)
def test_data_that_is_none(tokred: Call, name: str) -> None:
    assert name.partition(":")[2] in refused(tokred, *SMALL, "--data", name)


@pytest.mark.parametrize("spec", REDUCERS)
@pytest.mark.parametrize("command", [("profile", "--reducer"), ("compare", "--clips", 2, "--timing", 0, "--reducers")])
def test_reducers_that_are_none(tokred: Call, command: tuple[object, ...], spec: str) -> None:
    refused(tokred, *command, spec)


@pytest.mark.parametrize("words", OTHERS, ids=" ".join)
def test_other_commands(tokred: Call, words: tuple[str, ...]) -> None:
    refused(tokred, *words)


def test_real_files_that_are_broken_are_named(tokred: Call, shared: Path) -> None:
    folder = shared / "data" / "broken"
    if not folder.is_dir():
        pytest.skip(f"the broken files are not here: {folder}")
    status, out, err = tokred(*SMALL, "--clips", 20, "--data", folder, "--json", "--out", "run")
    assert status == 1, err
    failures = json.loads(out)["data"]["failures"]
    assert {"zero_bytes.mp4", "text_named_mp4.mp4", "random_bytes.avi"} <= {Path(f["path"]).name for f in failures}
    assert all(f["reason"] and "\n" not in f["reason"] for f in failures)


FOREIGN = [
    *("null", "3", "[]", "{}", '{"schema": 1}', '{"schema": "1", "rows": []}', '{"schema": 1, "rows": {}}'),
    *('{"schema": 1, "rows": [1]}', '{"schema": 1, "rows": [{}]}', '{"schema": 1, "rows": [NaN]}', "[" * 100_000),
]


@pytest.mark.parametrize("content", FOREIGN, ids=[text[:30] for text in FOREIGN])
def test_results_of_a_foreign_shape(tokred: Call, content: str) -> None:
    Path("folder/results.json").write_text(content)
    refused(tokred, "report", "folder", "--out", "page.html")
    assert not Path("page.html").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tokred: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "fsync", full)
        assert os.strerror(errno.ENOSPC) in refused(tokred, *SMALL, "--out", "run")
    assert [path.name for path in Path("run").rglob("*") if path.is_file()] == [".lock"]
    assert tokred(*SMALL, "--out", "run")[0] == 0


def test_a_file_where_a_folder_is_needed(tokred: Call) -> None:
    assert "bytes" in refused(tokred, *SMALL, "--out", "bytes")
    assert "bytes" in refused(tokred, *SMALL, "--out", "bytes/run")
    assert Path("bytes").read_bytes() == bytes(range(256)) * 8
