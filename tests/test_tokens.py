from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.tokens import Grid, Tokens, sample_seeds


def tokens(b: int = 2, t: int = 4, s: int = 6, c: int = 5, prefix: int = 0, **known: object) -> Tokens:
    known.setdefault("groups", t)
    return Tokens(torch.randn(b, prefix + t * s, c), Grid(t, 2, s // 2), prefix, **known)  # type: ignore[arg-type]


def test_grid_counts_patches() -> None:
    assert Grid(4, 2, 3).patches == 24
    assert Grid(4, 2, 3).per_frame == 6


@given(t=st.integers(1, 5), s=st.integers(1, 4), prefix=st.integers(0, 3))
def test_frames_are_consecutive_runs_behind_the_prefix(t: int, s: int, prefix: int) -> None:
    x = torch.arange(prefix + t * s, dtype=torch.float32).reshape(1, -1, 1)
    frames = Tokens(x, Grid(t, 1, s), prefix, groups=t).by_frame()
    assert frames.shape == (1, t, s, 1)
    for i in range(t):
        assert frames[0, i, :, 0].tolist() == [prefix + i * s + j for j in range(s)]


def test_by_frame_is_a_view() -> None:
    one = tokens(prefix=1)
    one.by_frame()[1, 2, 3, 4] = 77.0
    assert one.x[1, 1 + 2 * 6 + 3, 4] == 77.0


def test_frames_can_be_read_in_larger_groups() -> None:
    assert tokens(t=4, s=6).by_frame(2).shape == (2, 2, 12, 5)


@pytest.mark.parametrize("groups", [3, 8, 0, -1])
def test_groups_that_do_not_divide_are_refused_with_the_numbers(groups: int) -> None:
    with pytest.raises(ValueError, match=rf"4 temporal groups cannot be read as {groups}: it must divide 4"):
        tokens(t=4).by_frame(groups)


def test_tokens_without_groups_have_no_frames() -> None:
    with pytest.raises(ValueError, match="not in equal temporal groups"):
        tokens(groups=None).by_frame()
    with pytest.raises(ValueError, match="not in equal temporal groups"):
        tokens(groups=None).by_frame(2)


def test_masses_are_one_until_something_merges() -> None:
    assert torch.equal(tokens(prefix=1).masses, torch.ones(2, 25))
    size = torch.rand(2, 24)
    assert tokens(size=size).masses is size


def test_new_features_keep_everything_else() -> None:
    one = tokens(prefix=1, size=torch.rand(2, 25), source=torch.zeros(2, 24, dtype=torch.int64))
    two = one.with_x(one.x + 1)
    assert torch.equal(two.x, one.x + 1)
    assert (two.size, two.source, two.groups, two.prefix, two.grid) == (one.size, one.source, 4, 1, one.grid)
    assert (two.count, two.patch_count) == (25, 24)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_sample_seed_is_a_function_of_that_sample_alone(dtype: torch.dtype) -> None:
    clips = torch.randn(5, 3, 4, 8, 8).to(dtype)
    seeds = sample_seeds(clips)
    assert seeds.dtype == torch.int64
    assert len(set(seeds.tolist())) == 5
    assert torch.equal(sample_seeds(clips[[3, 1]]), seeds[[3, 1]])
    strided = clips.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(sample_seeds(strided), seeds), "the layout in memory does not matter"


def test_a_sample_seed_sees_one_grey_level_of_one_pixel() -> None:
    clips = torch.rand(1, 3, 4, 8, 8)
    other = clips.clone()
    other[0, 0, 0, 0, 0] += 1 / 255
    assert sample_seeds(clips) != sample_seeds(other)


def test_a_sample_seed_is_the_same_in_every_format_that_holds_the_values() -> None:
    clips = torch.randint(-8, 8, (3, 3, 4, 8, 8)) / 4
    seeds = sample_seeds(clips)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(sample_seeds(clips.to(dtype)), seeds)


def test_values_that_are_not_finite_still_give_a_seed() -> None:
    clips = torch.tensor([[float("nan"), 1.0], [float("inf"), 1.0], [-float("inf"), 1e30]])
    assert len(set(sample_seeds(clips).tolist())) == 3
