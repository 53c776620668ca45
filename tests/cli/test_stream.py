"""`tokred stream` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tokred.cli.stream import lines


@pytest.fixture
def video(shared: Path) -> Path:
    path = shared / "data" / "clips" / "counter_10frames_hevc.mp4"
    if not path.is_file():
        pytest.skip(f"the real clips are not here: {path.parent}")
    return path


def test_table_picture_and_json(tokred: Callable[..., tuple[int, str, str]], video: Path, tmp_path: Path) -> None:
    status, out, _ = tokred(
        "stream", video, "--reducer", "eventful:r=8", "--backbone", "vivit_nano", "--out", tmp_path / "s"
    )
    assert status == 0
    assert "vivit_nano with eventful:r=8 on counter_10frames_hevc.mp4: 1 calls, 65 tokens" in out
    assert "note: the video has 10 sampled frames, the last is repeated to 16" in out
    assert (tmp_path / "s" / "stream.png").read_bytes()[:4] == b"\x89PNG"
    written = json.loads((tmp_path / "s" / "stream.json").read_text())
    assert written["summary"]["calls"] == 1
    assert "\n".join(lines(written)) in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.mp4"], "no such file or folder: missing.mp4"),
        (["--reducer", "sta:r=3"], "does not gate over time"),
        (["--reducer", "eventful:r=-1"], "r = -1"),
        (["--reducer", "eventful:r=999", "--backbone", "vivit_nano"], "r = 999"),
        (["--hop", "0"], "'0' is not a whole number of at least 1"),
        (["--backbone", "nothing"], "no backbone is named 'nothing'"),
    ],
)
def test_bad_usage_is_one_line(
    tokred: Callable[..., tuple[int, str, str]], video: Path, words: list[str], message: str
) -> None:
    given = words if words[0].endswith(".mp4") else [str(video), *words]
    status, _, err = tokred("stream", *given)
    assert status == 2
    assert message in err
    assert err.strip().count("\n") == 0
