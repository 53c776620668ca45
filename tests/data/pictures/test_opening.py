"""What users write after --data for pictures, and what they are told when it is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tokred.data.lists import DataError
from tokred.data.opening import open_source
from tokred.data.pictures import CIFAR10_CLASSES, PictureSource
from tokred.data.pictures.animate import AnimatedSource
from tokred.data.pictures.opening import is_pictures
from tokred.data.source import Source


def opened(spec: str, frames: int = 1, **settings: object) -> Source:
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    return open_source(spec, frames=frames, size=32, mean=mean, std=std, **settings)  # type: ignore[arg-type]


@pytest.fixture
def cifar(tmp_path: Path, write_npz: Callable[..., Path]) -> Path:
    for split, count in (("train", 4), ("test", 3)):
        write_npz(tmp_path / "cifar10" / f"{split}.npz", list(range(count)), CIFAR10_CLASSES)
    return tmp_path / "cifar10"


def test_images_are_still_for_one_frame_and_animated_when_asked(picture_folder: Path) -> None:
    still = opened(f"images:{picture_folder}")
    assert type(still) is PictureSource
    assert len(still) == 6
    moving = opened(f"images:{picture_folder}", frames=4, animate=True, seed=5, clips=3)
    assert isinstance(moving, AnimatedSource)
    assert (len(moving), moving.seed, moving.kinds) == (3, 5, ("camera", "cutout"))
    (batch,) = moving.batches(3)
    assert batch.clips.shape == (3, 3, 4, 32, 32)


def test_settings_after_commas(cifar: Path) -> None:
    assert len(opened(f"cifar10:{cifar}")) == 3
    assert len(opened(f"cifar10:{cifar},split=train")) == 4
    moving = opened(f"cifar10:{cifar},split=train,kind=cutout,seed=9", frames=4, animate=True)
    assert isinstance(moving, AnimatedSource)
    assert (len(moving), moving.kinds, moving.seed) == (4, ("cutout",), 9)


def test_a_comma_may_be_in_the_path(picture_folder: Path) -> None:
    odd = picture_folder.with_name("one, two,seed")
    picture_folder.rename(odd)
    assert len(opened(f"images:{odd}")) == 6
    assert len(opened(f"images:{odd},split=test")) == 6


def test_what_has_no_meaning_for_pictures_is_noted(picture_folder: Path) -> None:
    assert any("4 clips per item" in note for note in opened(f"images:{picture_folder}", views=(4, 1)).notes)
    moving = opened(f"images:{picture_folder}", frames=4, animate=True, views=(1, 3))
    assert any("3 crops" in note for note in moving.notes)
    (batch,) = opened(f"images:{picture_folder}", views=(1, 3)).batches(50)
    assert len(batch.items) == 18


@pytest.mark.parametrize(
    ("spec", "settings", "said"),
    [
        ("images:{}", {"frames": 8}, "holds single images, this model takes 8 frames: add --animate"),
        ("images:{}", {"animate": True}, "this model takes single images: leave it out"),
        ("images:{}s", {}, "no such file or folder: .*; close: .*pictures"),
        ("cifar10:{}s", {}, "no such file.*download=yes fetches it"),
        ("images:", {}, "images needs a place: images:PATH"),
        ("cifar10", {}, "cifar10 needs a place: cifar10:PATH"),
        ("images:{},splt=train", {}, "'splt=train' is not understood; did you mean split?"),
        ("images:{},what=1", {}, "'what=1' is not understood; allowed: split, kind, seed"),
        ("images:{},download=yes", {}, "'download=yes' is not understood"),
        ("images:{},split=dev", {}, r"split=dev is not split=train\|test"),
        ("images:{},seed=x", {}, "seed=x is not seed=NUMBER"),
        ("images:{},seed=1,kind=camera", {}, "seed and kind belong to --animate, which is not given"),
        ("cifar10:{}", {}, "no CIFAR-10 in"),
        ("synthetic", {"animate": True}, "--animate is for pictures: .*given 'synthetic'"),
        ("{}", {"animate": True, "frames": 4}, "--animate is for pictures"),
        ("imagse", {}, "no such file or folder: imagse; close: images"),
    ],
)
def test_mistakes_are_told_in_one_line(picture_folder: Path, spec: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        opened(spec.format(picture_folder), **settings)
    assert "\n" not in str(caught.value)


def test_a_folder_of_that_name_is_still_a_folder(tmp_path: Path) -> None:
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert is_pictures("images")
        (tmp_path / "images").mkdir()
        assert not is_pictures("images")
        assert is_pictures("images:there")
    finally:
        os.chdir(before)


def test_a_size_that_is_not_square_is_covered(picture_folder: Path) -> None:
    mean, std = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)
    found = open_source(f"images:{picture_folder}", frames=4, size=(16, 32), mean=mean, std=std, animate=True)
    (batch,) = found.batches(6)
    assert batch.clips.shape == (6, 3, 4, 16, 32)
    assert torch.isfinite(batch.clips).all()
