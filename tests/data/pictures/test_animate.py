"""Animated pictures: a pure function of the seed, moved as labelled, broken ones left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tokred.data.cache import PixelSource, materialise
from tokred.data.lists import DataError
from tokred.data.pictures import Pictures, find_pictures
from tokred.data.pictures.animate import AnimatedSource
from tokred.data.synthetic import MOTIONS
from tokred.data.views import Views

SIDE, FRAMES = 32, 8


def source(pictures: Pictures, **settings: object) -> AnimatedSource:
    views = Views((SIDE, SIDE), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return AnimatedSource(pictures, views, FRAMES, **settings)  # type: ignore[arg-type]


def spots(count: int) -> Pictures:
    """Black pictures with a white square in the middle, so that a camera can be followed."""

    def content(index: int) -> np.ndarray:
        picture = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
        picture[12:20, 12:20] = 255
        return picture

    return Pictures("spots", [str(i) for i in range(count)], (), (), content)


def centre(frame: Tensor) -> Tensor:
    """Centre of mass (x, y) of a frame (3, H, W)."""
    mass = frame.float().sum(0)
    rows, columns = torch.arange(mass.shape[0]) + 0.5, torch.arange(mass.shape[1]) + 0.5
    return torch.stack([(mass.sum(0) * columns).sum(), (mass.sum(1) * rows).sum()]) / mass.sum()


def test_a_seed_gives_the_same_clips_in_any_batch(picture_folder: Path) -> None:
    found = find_pictures(picture_folder)
    (whole,) = source(found, seed=3).batches(6)
    parts = list(source(found, seed=3).batches(4))
    assert whole.clips.shape == (6, 3, FRAMES, SIDE, SIDE)
    assert torch.equal(torch.cat([batch.clips for batch in parts]), whole.clips)
    (other,) = source(found, seed=4).batches(6)
    assert not torch.equal(whole.clips, other.clips)
    assert source(found, seed=3).digest() == source(found, seed=3).digest() != source(found, seed=4).digest()


def test_labels_are_the_class_and_the_motion(picture_folder: Path) -> None:
    found = source(find_pictures(picture_folder))
    assert [(s.name, s.offset) for s in found.label_sets] == [("class", 0), ("motion", 2)]
    assert found.label_sets[1].classes == MOTIONS
    (batch,) = found.batches(6)
    assert batch.labels["class"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.labels["motion"].tolist() == [found.motion(i)[0] for i in range(6)]


@pytest.mark.parametrize("kinds", [("camera", "cutout"), ("camera",), ("cutout",)])
def test_motions_and_kinds_are_balanced(kinds: tuple[str, ...]) -> None:
    found = source(spots(64), kinds=kinds)
    assert set(Counter(found.motion(i) for i in range(64)).values()) == {64 // 8 // len(kinds)}
    assert {kind for _, kind in map(found.motion, range(64))} == set(kinds)


def test_the_camera_moves_the_content_as_labelled() -> None:
    found = source(spots(8), kinds=("camera",))
    for index in range(8):
        (clip,) = found.item(index)
        first, last = clip[:, 0], clip[:, -1]
        x, y = ((centre(last) - centre(first)) / SIDE).tolist()
        bright = float(last.float().mean() / first.float().mean())
        motion = MOTIONS[found.motion(index)[0]]
        assert (x < -0.2, x > 0.2, y < -0.2, y > 0.2) == tuple(motion == m for m in ("left", "right", "up", "down"))
        assert (bright > 1.3, bright < 0.75) == (motion == "grow", motion == "shrink"), motion
        assert (clip == clip[:, :1]).all() == (motion == "still")


def test_a_cut_out_moves_over_a_drifting_background() -> None:
    def content(index: int) -> np.ndarray:
        return np.full((SIDE, SIDE, 3), 250 if index == 0 else 10, dtype=np.uint8)

    pictures = Pictures("two", ["white", *("black" * 31)], (), (), content)
    for seed in range(8):
        found = source(pictures, seed=seed, kinds=("cutout",))
        (clip,) = found.item(0)
        white = (clip[0] > 130).float().mean(dim=(1, 2))
        assert (white > 0.005).all()
        assert (white < 0.5).all()
        x, y = ((centre(clip[:, -1] - 10) - centre(clip[:, 0] - 10)) / SIDE).tolist()
        motion = MOTIONS[found.motion(0)[0]]
        if motion in ("left", "right"):
            assert x * (1 if motion == "right" else -1) > 0.1
        if motion in ("up", "down"):
            assert y * (1 if motion == "down" else -1) > 0.1
    moving = source(find_like(32), kinds=("cutout",))
    still = next(i for i in range(8) if MOTIONS[moving.motion(i)[0]] == "still")
    assert not (moving.item(still)[0][:, 0] == moving.item(still)[0][:, -1]).all(), "the background drifts"


def find_like(count: int) -> Pictures:
    """Pictures of smooth noise."""

    def content(index: int) -> np.ndarray:
        coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(index)) * 255
        fine = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
        return fine[0].permute(1, 2, 0).to(torch.uint8).numpy()

    return Pictures("noise", [str(i) for i in range(count)], (), (), content)


def test_broken_pictures_are_recorded_and_never_a_background(picture_folder: Path) -> None:
    (picture_folder / "cats" / "2.png").write_bytes(b"text")
    found = source(find_pictures(picture_folder), kinds=("cutout",))
    assert isinstance(found, PixelSource)
    kept = materialise(found)
    assert kept.rows == 5
    assert [failure.path for failure in kept.failures] == ["cats/2.png"]


def test_one_picture_is_its_own_background(pixels: Callable) -> None:
    alone = Pictures("one", ["a"], (), (), lambda index: pixels(0, 40, 40))
    (clip,) = source(alone, kinds=("cutout",)).item(0)
    assert clip.shape == (3, FRAMES, SIDE, SIDE)


def test_a_single_frame_is_refused(pixels: Callable) -> None:
    with pytest.raises(DataError, match="at least 2 frames, the model takes 1"):
        AnimatedSource(spots(2), Views((SIDE, SIDE), (0.5,) * 3, (0.5,) * 3), 1)
