"""What a user names becomes a source, or one line that says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tokred.data.lists import DataError
from tokred.data.opening import open_source
from tokred.data.source import Source

HALF = {"frames": 4, "size": 16, "mean": (0.45,) * 3, "std": (0.25,) * 3}
IMAGENET = {**HALF, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def clips_of(source: Source) -> torch.Tensor:
    return torch.cat([batch.clips for batch in source.batches(4)])


def test_synthetic_clips_follow_the_seed_in_the_name() -> None:
    base = open_source("synthetic", **HALF, clips=3)
    assert clips_of(base).shape == (3, 3, 4, 16, 16)
    assert len(open_source("synthetic", **HALF)) == 1000
    named, given = open_source("synthetic:seed=3", **HALF, clips=3), open_source("synthetic", **HALF, clips=3, seed=3)
    assert torch.equal(clips_of(named), clips_of(given))
    assert named.digest() == given.digest() != base.digest()
    assert not torch.equal(clips_of(named), clips_of(base))
    train = open_source("synthetic:seed=3,split=train", **HALF, clips=3)
    assert not torch.equal(clips_of(train), clips_of(named))


def test_synthetic_clips_take_the_normalisation_that_is_asked_for() -> None:
    half, imagenet = open_source("synthetic", **HALF, clips=2), open_source("synthetic", **IMAGENET, clips=2)
    mean, std = (torch.tensor(IMAGENET[key]).view(1, 3, 1, 1, 1) for key in ("mean", "std"))
    assert torch.allclose(clips_of(imagenet) * std + mean, clips_of(half) * 0.25 + 0.45, atol=1e-6)
    other = open_source("synthetic", **{**IMAGENET, "std": (0.2,) * 3}, clips=2)
    assert len({half.digest(), imagenet.digest(), other.digest()}) == 3
    assert (len(imagenet), imagenet.label_sets) == (len(half), half.label_sets)


@pytest.mark.parametrize("spec", ["synthetic:sed=3", "synthetic:seed", "synthetic:seed=x", "synthetic:seed=1,foo"])
def test_unknown_settings_of_synthetic_clips_are_refused(spec: str) -> None:
    with pytest.raises(DataError, match=r"is not understood \(allowed: seed=NUMBER, split=train\|test\)$"):
        open_source(spec, **HALF)


def test_views_of_synthetic_clips_are_noted_as_meaningless() -> None:
    assert any("2x3" in note for note in open_source("synthetic", **HALF, views=(2, 3)).notes)
    with pytest.raises(DataError, match="16x32"):
        open_source("synthetic", **{**HALF, "size": (16, 32)})


def test_folder_list_and_file_give_the_same_clips(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    make_video(tmp_path / "run" / "1.mp4", 20)
    make_video(tmp_path / "jump" / "1.mp4", 30)
    (tmp_path / "list.csv").write_text("jump/1.mp4 0\nrun/1.mp4 1\n")
    folder, listed = open_source(tmp_path, **HALF), open_source(str(tmp_path / "list.csv"), **HALF)
    single = open_source(tmp_path / "run" / "1.mp4", **HALF)
    assert torch.equal(clips_of(folder), clips_of(listed))
    assert torch.equal(clips_of(folder)[1:], clips_of(single))
    assert folder.digest() == listed.digest()
    assert [len(source) for source in (folder, listed, single)] == [2, 2, 1]
    assert (folder.name, listed.name, single.name) == (tmp_path.name, "list.csv", "1.mp4")
    assert folder.label_sets[0].classes == ("jump", "run")
    assert single.label_sets == ()


def test_number_of_videos_views_and_size_follow_the_arguments(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    for number in range(4):
        make_video(tmp_path / f"{number}.mp4", 12)
    source = open_source(tmp_path, **{**HALF, "size": (16, 24)}, clips=2, views=(2, 3), sampling="uniform")
    assert clips_of(source).shape == (2 * 6, 3, 4, 16, 24)
    assert any(note == "2 of 4 videos, evenly spaced" for note in source.notes)


def test_missing_empty_and_unknown_data_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data.npz").touch()
    (tmp_path / "empty").mkdir()
    for spec, message in (
        (tmp_path / "gone", "no such file or folder: .*gone \\(allowed: a folder, a list, a video, 'synthetic', "),
        (tmp_path / "empty", "no video in the folder"),
        (tmp_path / "data.npz", "unknown kind of file: .*data.npz \\(allowed: a folder; lists .csv .*; videos .3gp"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_source(spec, **HALF)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", [{"frames": 0}, {"views": (0, 1)}, {"views": (1, 2)}, {"sampling": "x"}])
def test_impossible_settings_are_refused(tmp_path: Path, make_video: Callable[..., Path], setting: dict) -> None:
    path = make_video(tmp_path / "a.mp4", 2)
    with pytest.raises(ValueError, match=" = "):
        open_source(path, **{**HALF, **setting})
