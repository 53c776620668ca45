"""STTS's two stages without its scorers, against loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokred.advance import advance
from tokred.anchors import Anchors
from tokred.methods import STTSHeuristic
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Keep
from tokred.schedule import ScheduleError
from tokred.tokens import Grid, Tokens
from tokred.two_stage import CutStep


def clip(grid: Grid, prefix: int, seed: int, batch: int = 2) -> Tokens:
    x = torch.randn(batch, prefix + grid.patches, 5, generator=torch.Generator().manual_seed(seed))
    seeds = torch.arange(batch) + seed
    return Tokens(x, grid, prefix, groups=grid.t, sample_seed=seeds)


def decide(reducer: STTSHeuristic, tokens: Tokens, time: float, space: float) -> Keep | None:
    reduction = reducer.reduce(tokens, Probe(tokens.x), Site("before_block", step(time, space), 6, tokens.grid.t))
    assert reduction is None or isinstance(reduction, Keep)
    return reduction


def step(time: float, space: float) -> CutStep:
    return CutStep(0, 0, "keep", time * space, time, space)


def frame_scores(name: str, x: Tensor) -> list[float]:
    """Score of each frame of one clip x (T, S, C)."""
    if name == "norm":
        return [float(frame.norm(dim=-1).mean()) for frame in x]
    change = [float((x[t] - x[t - 1]).norm(dim=-1).mean()) for t in range(1, len(x))]
    return [change[0], *change]


def square_scores(name: str, x: Tensor, anchors: Anchors) -> list[list[float]]:
    """Score of each square of each frame of one clip x (T, S, C)."""
    if name == "difference":
        x = x - (x.mean(0, keepdim=True) if len(x) > 1 else x.mean(1, keepdim=True))
    return [[float(frame[window].norm(dim=-1).mean()) for window in anchors.places()] for frame in x]


@given(
    st.builds(Grid, st.integers(1, 5), st.integers(2, 6), st.integers(2, 6)),
    st.integers(0, 2),
    st.floats(0.2, 1),
    st.floats(0.3, 1),
    st.sampled_from(["uniform", "difference", "norm"]),
    st.sampled_from(["norm", "difference", "centre"]),
    st.integers(0, 9999),
)
def test_both_stages_by_loops(
    grid: Grid, prefix: int, time: float, space: float, frames: str, squares: str, seed: int
) -> None:
    reducer = STTSHeuristic(time=1.0, space=1.0, frames=frames, squares=squares)
    left = int(grid.t * time)
    if left == 0:
        return
    tokens = clip(grid, prefix, seed)
    reduction = decide(reducer, tokens, time, space)
    anchors = Anchors(grid.h, grid.w, *(int(int(n * n * space) ** 0.5) for n in grid[1:]))
    for b, x in enumerate(tokens.by_frame()):
        if frames == "uniform":
            kept = [j * (grid.t - 1) // max(left - 1, 1) for j in range(left)]
        elif left == grid.t:
            kept = list(range(left))
        else:
            scores = frame_scores(frames, x)
            kept = sorted(sorted(range(grid.t), key=lambda t: -scores[t])[:left])
        if squares == "centre":
            windows = [anchors.centre] * left
        else:
            windows = [max(range(anchors.count), key=s.__getitem__) for s in square_scores(squares, x[kept], anchors)]
        places = [t * grid.per_frame + int(i) for t, q in zip(kept, windows, strict=True) for i in anchors.places()[q]]
        expected = [*range(prefix), *(prefix + place for place in places)]
        found = list(range(tokens.count)) if reduction is None else reduction.index[b].tolist()
        assert found == expected
    assert reduction is None or reduction.groups == left


def test_survivors_are_whole_frames_that_a_later_stage_can_cut() -> None:
    grid = Grid(4, 4, 6)
    tokens = clip(grid, 1, 3)
    reducer = STTSHeuristic(time=0.5, space=0.5, frames="norm", squares="norm")
    first = decide(reducer, tokens, 0.5, 1.0)
    assert first is not None
    between = advance(tokens, first)
    assert between.groups == 2
    second = decide(reducer, between, 1.0, 0.5)
    both = decide(reducer, tokens, 0.5, 0.5)
    assert second is not None
    assert both is not None
    assert torch.equal(first.index.gather(1, second.index), both.index)


@pytest.mark.parametrize(
    ("left", "kept"), [(1, [0]), (2, [0, 5]), (3, [0, 2, 5]), (4, [0, 1, 3, 5]), (5, [0, 1, 2, 3, 5])]
)
def test_uniform_frames_reach_from_the_first_to_the_last(left: int, kept: list[int]) -> None:
    tokens = clip(Grid(6, 2, 2), 0, 0)
    made = decide(STTSHeuristic(time=1.0, frames="uniform"), tokens, (left + 0.5) / 6, 1.0)
    assert made is not None
    assert made.index[:, ::4].tolist() == [[4 * t for t in kept]] * 2


def test_random_frames_and_random_squares_are_the_same_in_every_release() -> None:
    """Frames and squares are drawn from numbers of their own, so neither choice tells the other."""
    tokens = clip(Grid(6, 2, 2), 0, 0, batch=6)
    frames = decide(STTSHeuristic(time=1.0, frames="random"), tokens, 0.5, 1.0)
    squares = decide(STTSHeuristic(time=1.0, squares="random"), tokens, 1.0, 0.25)
    assert frames is not None
    assert squares is not None
    assert (frames.index[:, ::4] // 4).tolist() == [[2, 3, 5], [0, 1, 3], [0, 1, 5], [0, 1, 3], [1, 2, 3], [0, 1, 3]]
    assert (squares.index % 4).tolist() == [
        [3, 0, 1, 1, 1, 0],
        [3, 2, 0, 1, 0, 2],
        [3, 2, 1, 3, 0, 3],
        [0, 0, 0, 0, 2, 3],
        [0, 2, 3, 1, 2, 3],
        [2, 0, 0, 3, 2, 3],
    ]


def test_random_choices_follow_the_clip_and_the_seed() -> None:
    tokens = clip(Grid(6, 6, 6), 0, 0, batch=8)
    chosen = [
        decide(STTSHeuristic(0.4, frames="random", squares="random", seed=seed), tokens, 0.5, 0.5) for seed in (0, 0, 1)
    ]
    indices = [keep.index for keep in chosen if keep is not None]
    assert torch.equal(indices[0], indices[1])
    assert not torch.equal(indices[0], indices[2])
    assert len({tuple(row) for row in indices[0].tolist()}) > 4
    word = "".join(["ran", "dom"])  # as a command line makes it: equal to the constant, and another object
    typed = decide(STTSHeuristic(0.4, frames=word, squares=word), tokens, 0.5, 0.5)
    assert typed is not None
    assert torch.equal(typed.index, indices[0])
    assert indices[0][0].tolist() == [
        78,
        79,
        80,
        81,
        84,
        85,
        86,
        87,
        90,
        91,
        92,
        93,
        96,
        97,
        98,
        99,
        115,
        116,
        117,
        118,
        121,
        122,
        123,
        124,
        127,
        128,
        129,
        130,
        133,
        134,
        135,
        136,
        186,
        187,
        188,
        189,
        192,
        193,
        194,
        195,
        198,
        199,
        200,
        201,
        204,
        205,
        206,
        207,
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": "middle"}, "frames = 'middle' is not one of uniform, difference, norm, random"),
        ({"squares": "left"}, "squares = 'left' is not one of norm, difference, centre, random"),
        ({"keep": 0.0}, r"keep = 0 is not in \(0, 1\]"),
        ({"time": 1.5}, r"time = 1.5 is not in \(0, 1\]"),
        ({"space": -1.0}, r"space = -1 is not in \(0, 1\]"),
        ({"keep": 0.5, "time": 0.5}, "give keep, or time and space, not both: keep = 0.5, time = 0.5, space = None"),
    ],
)
def test_wrong_settings_are_refused_when_it_is_made(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        STTSHeuristic(**settings)
