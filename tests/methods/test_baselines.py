from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.methods import FewerFrames, GridKeep, LowerResolution, RandomDrop, RandomMerge, TopK, Unreduced
from tokred.probe import Probe
from tokred.reducer import Site, SmallerInput, TokenReducer
from tokred.reduction import Keep, Merge, Reduction
from tokred.schedule import ScheduleError, Step
from tokred.testing import default_backbones
from tokred.tokens import Grid, Tokens

VIDEO, IMAGE, *_ = default_backbones()
GEOMETRY = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 4, 6), prefix=0, classes=7, kernel=(2, 4, 4)
)


def step_of(
    reducer: Any, n: int, prefix: int = 0, groups: int | None = None, seeds: list[int] | None = None
) -> Reduction | None:
    """What the first step of a reducer decides on n patch tokens of two samples."""
    x = torch.randn(2, prefix + n, 8, generator=torch.Generator().manual_seed(0))
    q, k = (torch.randn(2, 2, prefix + n, 4, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    probe = Probe(x, q, k, k, prefix=prefix, needs=reducer.capabilities.needs)
    tokens = Tokens(x, Grid(1, 1, n), prefix, groups=groups, sample_seed=torch.tensor(seeds or [7, 8]))
    return reducer.reduce(tokens, probe, Site(reducer.site, reducer.schedule.steps(6)[0], 6, 1))


@given(st.integers(1, 30), st.floats(0.03, 1), st.integers(0, 2))
def test_random_drop_keeps_a_random_set_in_order(n: int, keep: float, prefix: int) -> None:
    found = step_of(RandomDrop(keep), n, prefix)
    left = math.ceil(keep * n)
    if left == n:
        assert found is None
        return
    assert isinstance(found, Keep)
    assert found.index.shape == (2, prefix + left)
    for row in found.index.tolist():
        assert row[:prefix] == list(range(prefix))
        assert row == sorted(set(row))


@given(st.integers(1, 30), st.floats(0.03, 1), st.integers(0, 2))
def test_random_merge_sends_every_token_to_a_kept_one(n: int, keep: float, prefix: int) -> None:
    found = step_of(RandomMerge(keep), n, prefix)
    left = math.ceil(keep * n)
    if left == n:
        assert found is None
        return
    assert isinstance(found, Merge)
    assert found.n_out == prefix + left
    for row in found.assign.tolist():
        assert row[:prefix] == list(range(prefix))
        assert set(row[prefix:]) == set(range(prefix, prefix + left))


@pytest.mark.parametrize("kind", [RandomDrop, RandomMerge])
def test_what_is_random_depends_on_the_clip_the_seed_and_the_block(kind: type[TokenReducer]) -> None:
    def went(reducer: TokenReducer, seeds: list[int]) -> torch.Tensor:
        found = step_of(reducer, 40, seeds=seeds)
        assert found is not None
        return found.positions()

    base = went(kind(0.5), [7, 8])  # type: ignore[call-arg]
    assert torch.equal(went(kind(0.5), [8, 7]), base.flip(0))  # type: ignore[call-arg]
    assert not torch.equal(base[0], base[1])
    assert not torch.equal(went(kind(0.5, seed=1), [7, 8]), base)  # type: ignore[call-arg]
    assert not torch.equal(went(kind(0.5, at=(3,)), [7, 8]), base)  # type: ignore[call-arg]


def test_over_many_clips_every_place_is_kept_as_often() -> None:
    n, times = 40, torch.zeros(40)
    for i in range(0, 400, 2):
        keep = step_of(RandomDrop(0.5), n, seeds=[i, i + 1])
        assert isinstance(keep, Keep)
        times += torch.zeros(2, n).scatter(1, keep.index, 1.0).sum(0)
    assert float((times / 400 - 0.5).abs().max()) < 0.12


@given(st.integers(1, 4), st.integers(1, 12), st.floats(0.05, 1), st.integers(0, 2))
def test_grid_keeps_the_same_even_spread_of_every_frame(groups: int, g: int, keep: float, prefix: int) -> None:
    found = step_of(GridKeep(keep), groups * g, prefix, groups)
    left = math.ceil(keep * g)
    if left == g:
        assert found is None
        return
    assert isinstance(found, Keep)
    assert found.groups == groups
    inside = [i * g // left for i in range(left)]
    expected = [*range(prefix), *(prefix + frame * g + i for frame in range(groups) for i in inside)]
    assert found.index.tolist() == [expected] * 2
    gaps = [b - a for a, b in zip([*inside, inside[0] + g], [*inside, inside[0] + g][1:], strict=False)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_topk_keeps_the_most_attended_in_their_places(prefix: int) -> None:
    n = 9
    found = step_of(TopK(0.5), n, prefix)
    assert isinstance(found, Keep)
    q, k = (torch.randn(2, 2, prefix + n, 4, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    attention = (q @ k.transpose(-1, -2)).softmax(-1)
    for i in range(2):
        score = attention[i, :, 0].mean(0) if prefix else attention[i].mean((0, 1))
        ranked = sorted(range(n), key=lambda j: -float(score[prefix + j]))[:5]
        assert found.index[i].tolist() == [*range(prefix), *(prefix + j for j in sorted(ranked))]


def test_random_choices_are_the_same_in_every_release() -> None:
    """Tables that were made with them can be made again."""
    drop, merge = step_of(RandomDrop(0.5), 8), step_of(RandomMerge(0.5), 8)
    assert isinstance(drop, Keep)
    assert isinstance(merge, Merge)
    assert drop.index.tolist() == [[0, 3, 4, 7], [0, 3, 6, 7]]
    assert merge.assign.tolist() == [[1, 0, 1, 3, 1, 2, 3, 0], [0, 0, 1, 1, 2, 3, 0, 2]]


def test_topk_costs_one_row_of_attention_or_all_of_them() -> None:
    step = Step(0, 0, "keep", 0.5)
    assert TopK(0.5).macs(96, GEOMETRY, step) == 96 * 96 * 24
    assert TopK(0.5).macs(97, replace(GEOMETRY, prefix=1, class_token=True), step) == 97 * 24


def test_topk_says_what_ranked() -> None:
    for backbone, word in ((VIDEO, "received"), (IMAGE, "class")):
        host, _ = backbone.build()
        assert attach(host, TopK(0.5)).notes == (f"ranked by {word} attention",)


@pytest.mark.parametrize(
    ("t", "left", "frames"),
    [(8, 4, (1, 3, 5, 7)), (8, 3, (1, 4, 6)), (8, 1, (4,)), (4, 3, (0, 2, 3)), (5, 5, None), (5, None, None)],
)
def test_fewer_frames_are_spread_over_the_clip(t: int, left: int | None, frames: tuple[int, ...] | None) -> None:
    where = Geometry(
        depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(t, 4, 6), prefix=0, classes=7, kernel=(2, 4, 4)
    )
    found = FewerFrames(left).smaller_input(where)
    assert found == (None if frames is None else SmallerInput(Grid(len(frames), 4, 6), frames))


@torch.no_grad()
def test_fewer_frames_is_the_host_on_those_tubelets_with_their_own_positions() -> None:
    host, clips = VIDEO.build()
    run = attach(host, FewerFrames(2)).run(clips)
    x = host.embed(clips).reshape(3, 4, 24, 24)[:, [1, 3]].flatten(1, 2)  # type: ignore[operator]
    for block in host.blocks:  # type: ignore[union-attr]
        x = block(x)  # type: ignore[operator]
    torch.testing.assert_close(run.logits, host.head(host.pool(x)))  # type: ignore[operator]
    assert run.tokens.grid == Grid(2, 4, 6)


@torch.no_grad()
def test_lower_resolution_is_the_host_on_smaller_clips() -> None:
    host, clips = VIDEO.build()
    fast = attach(host, LowerResolution(2))
    small = F.interpolate(clips.transpose(1, 2).flatten(0, 1), size=(8, 12), mode="bilinear", antialias=True)
    small = small.unflatten(0, (3, 8)).transpose(1, 2)
    assert fast.run(clips).tokens.grid == Grid(4, 2, 3)
    torch.testing.assert_close(fast(clips), host(small))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FewerFrames(0), "tubelets = 0 is not a whole number of at least 1"),
        (lambda: LowerResolution(-2), "rows = -2 is not a whole number of at least 1"),
        (lambda: FewerFrames(5).check(GEOMETRY), r"tubelets = 5 is not in 1\.\.4"),
        (lambda: LowerResolution(5).check(GEOMETRY), r"rows = 5 is not in 1\.\.4"),
        (lambda: RandomDrop(0), r"keep = 0 is not in \(0, 1\]"),
        (lambda: RandomMerge(1.2), r"keep = 1.2 is not in \(0, 1\]"),
        (lambda: GridKeep((0.5, 2.0)), r"keep = 2 is not in \(0, 1\]"),
        (lambda: TopK(float("nan")), r"keep = nan is not a number or a list of numbers"),
        (lambda: FewerFrames("2"), "tubelets = '2' is not a whole number or none"),
        (lambda: Unreduced().strength_range(GEOMETRY), "none has no strength to solve for"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_strength() -> None:
    assert (FewerFrames().strength_range(GEOMETRY).weakest, FewerFrames().strength_range(GEOMETRY).strongest) == (4, 1)
    assert LowerResolution().strength_range(GEOMETRY).weakest == 4
    image = Geometry(
        depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(1, 8, 8), prefix=1, classes=7, kernel=(1, 4, 4)
    )
    with pytest.raises(ScheduleError, match="fewer_frames needs a video: this backbone sees one frame"):
        FewerFrames().strength_range(image)


def test_grid_promises_per_frame() -> None:
    assert GridKeep(0.3).promise(Step(0, 0, "keep", 0.3), 4 * 24, 4, GEOMETRY).left == 4 * 8
