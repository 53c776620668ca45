"""Pictures of a followed clip: strips, GIF and MP4 that can be read again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from tokred.report.show import describe, moments, save, strip
from tokred.run.show import Followed, Shown, Stage
from tokred.tokens import Grid


@pytest.fixture
def shown() -> Shown:
    rng = np.random.default_rng(0)
    kept = np.arange(8).reshape(2, 2, 2)
    dropped = np.where(kept % 2 == 0, kept, -1)
    stages = (Stage(0, dropped, 4), Stage(3, np.zeros_like(kept), 1))
    frames = rng.integers(0, 255, (4, 16, 16, 3)).astype(np.uint8)
    return Shown(
        frames, 2, Grid(2, 2, 2), "a clip", "a backbone", (Followed("x:r=1", stages), Followed("y", stages[:1]))
    )


def test_a_line_says_what_became_of_the_patches(shown) -> None:
    one = shown.reducers[0]
    assert describe(one, one.stages[0]) == "x:r=1, behind block 0: 4 tokens, 50% of the patches dropped"
    assert describe(one, one.stages[1]) == "x:r=1, behind block 3: 1 tokens, 100% merged"


def test_the_strip_has_a_row_for_every_stage(shown) -> None:
    picture = strip(shown)
    assert picture.shape[0] > 4 * 128
    assert picture.dtype == np.uint8
    assert (picture < 250).any()


def test_a_long_name_widens_the_picture_instead_of_being_cut(shown) -> None:
    long = Shown(shown.frames, 2, shown.grid, "n" * 200, "b", shown.reducers)
    assert strip(long).shape[1] > strip(shown).shape[1]


def test_there_is_a_moment_for_every_step_of_time(shown) -> None:
    pictures = list(moments(shown))
    assert len(pictures) == 2
    assert pictures[0].shape == pictures[1].shape
    assert not np.array_equal(pictures[0], pictures[1])


def test_a_png_and_a_gif_can_be_read_again(shown, tmp_path) -> None:
    with Image.open(save(shown, tmp_path / "a.png")) as picture:
        assert np.array_equal(np.asarray(picture), strip(shown))
    with Image.open(save(shown, tmp_path / "a.gif")) as picture:
        assert picture.n_frames == 2


def test_an_mp4_can_be_read_again(shown, tmp_path) -> None:
    import av

    data = save(shown, tmp_path / "a.mp4").read_bytes()
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 2
    wanted = next(moments(shown))[: frames[0].shape[0], : frames[0].shape[1]].astype(int)
    assert np.abs(frames[0].astype(int) - wanted).mean() < 40


def test_other_endings_are_refused(shown, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"allowed are \.png, \.gif, \.mp4"):
        save(shown, tmp_path / "a.jpg")
