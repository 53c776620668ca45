"""Outputs of the published code, where they lie beside the checkout: every file passes, with its decisions equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokred.run.parity import find_files, replay_file

GOLDEN = Path(__file__).resolve().parents[3] / "shared" / "golden"
WANTED = {
    "sta": "*",
    "tome": "*",
    "evit": "*",
    "vid_tldr": "*",
    "stts": "*",
    "backbones": "*",
    "sta_videoswin": "*",
    "stvit": "*",
}


def golden_files() -> list[object]:
    """One case for each file, or one skipped case that says why there are none."""
    found = [
        path for name, only in WANTED.items() if (GOLDEN / name).is_dir() for path in find_files(GOLDEN / name, only)
    ]
    if not found:
        return [pytest.param(GOLDEN, marks=pytest.mark.skip(reason=f"no golden vectors here: {GOLDEN}"))]
    return [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in found]


@pytest.mark.parametrize("path", golden_files())
def test_published_code_agrees(path: Path) -> None:
    report = replay_file(path)
    assert report.status == "pass", report.line()
    assert report.max_error is not None or report.decisions is not None
    if report.decisions is not None:
        assert report.decisions[0] == report.decisions[1]
