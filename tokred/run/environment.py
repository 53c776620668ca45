"""What a result was made with: versions, machine, commit."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import tokred

NOT_COMPUTING = (
    "api.py",
    "cli/",
    "report/",
    "testing/",
    "run/parity/",
    "run/engine/",
    "run/train",
    "run/spec_file",
    "run/sweep",
    "run/tune",
    "run/show",
)
"""Source that no value of a cell passes through: it plans, prints, draws and checks."""


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Short hash of the source that values pass through: another code, another result."""
    root = Path(tokred.__file__).parent
    digest = hashlib.sha256()
    for path in computing(root):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def computing(root: Path) -> list[Path]:
    """The source files of the package that decide what a cell holds, in a fixed order."""
    everything = {*root.rglob("*.py"), *(root / "methods").glob("*.py")}
    return sorted(p for p in everything if not p.relative_to(root).as_posix().startswith(NOT_COMPUTING))


def environment(device: str, dtype: str) -> dict[str, Any]:
    """Versions, processor, threads, precision and commit, as plain values for JSON."""
    commit, dirty = _commit()
    return {
        "tokred": tokred.__version__,
        "code": code_digest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "device": device,
        "dtype": dtype,
        "attention": "torch scaled_dot_product_attention",
        "commit": commit,
        "dirty": dirty,
    }


def check_device(name: str) -> str:
    """The name of a device that this machine has.

    Raises:
        ValueError: it has none of that name; one line.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"{name!r} is not a device; allowed are cpu, cuda, cuda:N, mps") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"{name!r}: this machine has {torch.cuda.device_count()} CUDA devices; cpu is allowed")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"{name!r} is not a device; allowed are cpu, cuda, cuda:N, mps")
    return name


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()} ({os.cpu_count()} cores)"
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that the package is run from, and whether it has changes; None in an installed one."""
    root = Path(tokred.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit[:12], bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
