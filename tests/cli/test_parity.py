"""``tokred parity``: one line a file, status 1 when one does not pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from tokred.backbones.positions import sincos_flat

Call = Callable[..., tuple[int, str, str]]


def table(path: Path, error: float = 0.0) -> None:
    metadata = {"kind": '"sin-cos position table"', "n": "6", "d": "8"}
    save_file({"table": sincos_flat(6, 8)[0] + error}, path, metadata)


def test_one_line_a_file_and_the_status(tokred: Call, tmp_path: Path) -> None:
    table(tmp_path / "good.safetensors")
    status, out, _ = tokred("parity", tmp_path)
    assert status == 0, out
    assert "1 of 1 files pass" in out
    table(tmp_path / "wrong.safetensors", 0.1)
    (tmp_path / "torn.safetensors").write_bytes(b"\x08")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", {"kind": '"something else"'})
    status, out, _ = tokred("parity", tmp_path)
    assert status == 1
    lines = {line.split()[1]: line for line in out.splitlines() if ".safetensors" in line}
    assert lines["good.safetensors"].startswith("pass")
    assert lines["wrong.safetensors"].startswith("fail")
    assert lines["torn.safetensors"].startswith("fail")
    assert "something else" in lines["other.safetensors"]
    assert tokred("parity", tmp_path, "--only", "good*")[0] == 0
