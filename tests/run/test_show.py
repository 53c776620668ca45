"""A clip is followed through reducers: what each patch became behind every step."""

from __future__ import annotations

import numpy as np
import pytest

from tokred.run.show import ShowSettings, follow_clip


def show(*reducers: str, **more):
    return follow_clip(ShowSettings("synthetic", reducers, **more))


def test_every_step_is_a_stage_with_its_patches() -> None:
    shown = show("sta:r=22")
    (one,) = shown.reducers
    assert [stage.block for stage in one.stages] == [0, 3, 6]
    assert [stage.tokens for stage in one.stages] == [336, 248, 204]
    for stage in one.stages:
        assert stage.source.shape == shown.grid == (8, 8, 8)
        assert (stage.source >= 0).sum() == stage.tokens
    assert shown.frames.shape == (16, 64, 64, 3)
    assert shown.per_tubelet == 2


def test_a_reducer_without_a_strength_is_solved_for_half_of_the_cost() -> None:
    one, two = show("tome", "tome:r=3").reducers
    assert one.share == pytest.approx(0.5, abs=0.02)
    assert two.share is None
    assert (two.spec, len(two.stages)) == ("tome:r=3", 4)


def test_stages_are_thinned_and_the_last_stays() -> None:
    (one,) = show("tome:r=20", stages=2).reducers
    assert [stage.block for stage in one.stages] == [4, 8]
    assert one.stages[-1].tokens == 512 - 9 * 20


def test_the_frames_are_those_of_the_clip_that_was_asked_for() -> None:
    assert not np.array_equal(show("none", clip=0).frames, show("none", clip=2).frames)
    assert np.array_equal(show("none", clip=2).frames, show("none", clip=2).frames)
    assert (show("none").reducers[0].stages[0].source >= 0).all()


@pytest.mark.parametrize(
    ("reducer", "words"),
    [("fewer_frames:tubelets=4", "input itself smaller"), ("sta:r=64", "64")],
)
def test_what_cannot_be_drawn_is_refused(reducer, words) -> None:
    with pytest.raises(ValueError, match=words):
        show(reducer)


def test_a_clip_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        follow_clip(ShowSettings(str(tmp_path / "x.mp4"), ("sta",)))


def test_windows_are_followed_on_the_grid_of_the_input() -> None:
    shown = show("random_drop:keep=0.6", backbone="videoswin_nano")
    assert shown.reducers[0].stages[-1].source.shape == shown.grid
