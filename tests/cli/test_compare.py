"""``tokred compare`` from the words of a user to files and exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

Call = Callable[..., tuple[int, str, str]]
SMALL = ("--clips", 4, "--timing", 0)


def video(path: Path, frames: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        rng = np.random.default_rng(len(path.name))
        picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        for i in range(frames):
            shifted = np.ascontiguousarray(np.roll(picture, 2 * i, axis=1))
            for packet in stream.encode(av.VideoFrame.from_ndarray(shifted, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def test_generated_clips(tokred: Call, tmp_path: Path) -> None:
    status, out, err = tokred("compare", "--reducers", "sta:r=12,tome:r=20", *SMALL, "--out", tmp_path / "run")
    assert status == 0, err
    assert "sta" in out
    assert str(tmp_path / "run" / "report.html") in out
    status, _, err = tokred("compare", "--reducers", "sta:r=12,tome:r=20", *SMALL, "--out", tmp_path / "run")
    assert status == 0
    assert "3 of 3 rows are kept" in err


def test_json_on_standard_output(tokred: Call, tmp_path: Path) -> None:
    status, out, _ = tokred("compare", "--reducers", "grid", "--budgets", "50%", *SMALL, "--json", "--out", tmp_path)
    assert status == 0
    results = json.loads(out)
    assert results["settings"]["budgets"] == [0.5]
    assert [row["method"] for row in results["rows"]] == ["none", "grid"]


def test_a_refused_reducer_that_was_asked_for_is_status_1(tokred: Call, tmp_path: Path) -> None:
    status, out, err = tokred("compare", "--reducers", "sta:r=64,grid:keep=0.5", *SMALL, "--out", tmp_path)
    assert status == 1
    assert "1 failed: sta:r=64" in err
    assert "grid" in out


def test_a_learned_reducer_without_weights_needs_leave(tokred: Call, tmp_path: Path) -> None:
    asked = "dynamicvit:keep=0.7,weights=none"
    status, out, err = tokred("compare", "--reducers", f"{asked},grid", *SMALL, "--json", "--out", tmp_path / "both")
    assert status == 1
    assert "1 failed: dynamicvit" in err
    assert "--allow-untrained" in json.loads(out)["rows"][1]["reason"]
    words = ("compare", "--reducers", asked, *SMALL, "--json", "--out", tmp_path)
    status, out, _ = tokred(*words, "--allow-untrained")
    assert status == 0
    row = json.loads(out)["rows"][1]
    assert (row["status"], row["learned"], row["trained"]) == ("done", True, False)
    assert any("untrained" in note for note in row["notes"])


@pytest.mark.parametrize("asked", ["topk:keep=0.5,at=[99]", "dynamicvit:keep=0.7,weights=none"])
def test_where_nothing_asked_for_can_run_nothing_is_computed(tokred: Call, tmp_path: Path, asked: str) -> None:
    status, out, err = tokred("compare", "--reducers", asked, *SMALL, "--out", tmp_path / "o")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "can have none of the reducers" in err
    assert not (tmp_path / "o").exists()


def test_class_folders_with_one_broken_file(tokred: Call, tmp_path: Path) -> None:
    for name in ("walk/a.mp4", "walk/b.mp4", "run/c.mp4"):
        video(tmp_path / "videos" / name)
    (tmp_path / "videos" / "run" / "d.mp4").write_bytes(b"")
    words = ("--data", tmp_path / "videos", "--reducers", "sta:r=12", "--timing", 0, "--json", "--out", tmp_path / "o")
    status, out, err = tokred("compare", *words, "--num-classes", 2)
    assert status == 1
    assert "d.mp4" in err
    results = json.loads(out)
    assert results["data"]["failures"][0]["path"].endswith("d.mp4")
    numbers = next(iter(results["rows"][0]["accuracy"].values()))
    assert numbers["n"] == 3


def test_unlabelled_videos_are_compared_with_the_unreduced_model(tokred: Call, tmp_path: Path) -> None:
    video(tmp_path / "one.mp4")
    words = ("--data", tmp_path / "one.mp4", "--reducers", "sta:r=12", "--timing", 0, "--json", "--out", tmp_path / "o")
    status, out, err = tokred("compare", *words)
    assert status == 0, err
    row = json.loads(out)["rows"][1]
    assert row["accuracy"] == {}
    assert row["agreement"]["value"] in (0.0, 1.0)
    assert row["kl"] >= 0


def test_only_broken_videos_still_finish(tokred: Call, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"text")
    words = ("--data", tmp_path / "videos", "--reducers", "sta:r=12", "--timing", 0, "--out", tmp_path / "o")
    status, out, _ = tokred("compare", *words)
    assert status == 1
    assert "a.mp4" in out
    assert (tmp_path / "o" / "report.html").is_file()


@pytest.mark.parametrize("spec", ["timm/vit_tiny_patch16_224"])
def test_an_image_model_refuses_clips_in_one_line(tokred: Call, tmp_path: Path, spec: str) -> None:
    status, _, err = tokred("compare", "--backbone", spec, *SMALL, "--out", tmp_path)
    assert status == 2
    assert "Traceback" not in err
