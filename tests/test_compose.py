from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tokred
from tokred.attach import attach
from tokred.compose import Composed, ComposeError, compose, parts_of
from tokred.dry import dry_run
from tokred.methods import (
    STA,
    EViT,
    FewerFrames,
    GridKeep,
    LowerResolution,
    RandomDrop,
    RandomMerge,
    ToMe,
    TopK,
    Unreduced,
)
from tokred.reducer import Capabilities
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones

VIDEO, IMAGE, *_ = default_backbones()


@given(
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    st.sampled_from([((0,), (0,)), ((0,), (1,)), ((1,), (0,)), ((0, 1), (1, 2))]),
)
def test_keep_ratios_multiply_each_step_rounded_up(
    a: float, b: float, at: tuple[tuple[int, ...], tuple[int, ...]]
) -> None:
    host, _ = VIDEO.build()
    geometry = attach(host, Unreduced()).geometry
    both = compose(TopK(a, at=at[0]), RandomDrop(b, at=at[1]))
    left = 96
    for block in range(3):
        for keep, where in ((a, at[0]), (b, at[1])):  # between attention and MLP before after the block
            if block in where:
                left = math.ceil(keep * left)
    assert dry_run(both, geometry).final == left


@torch.no_grad()
def test_the_documented_product_at_one_site() -> None:
    host, clips = VIDEO.build()
    run = attach(host, compose(TopK(0.7, at=(1,)), TopK(0.5, at=(1,)))).run(clips, record=True)
    assert [(r.n_in, r.n_out) for _, r in run.steps] == [(96, 68), (68, 34)]
    assert run.tokens.count == math.ceil(0.5 * math.ceil(0.7 * 96))


@torch.no_grad()
def test_the_stated_order_counts() -> None:
    host, clips = VIDEO.build()
    a, b = RandomDrop(0.5, at=(0,)), RandomMerge(0.5, at=(0,))
    first = attach(host, compose(a, b)).run(clips)
    other = attach(host, compose(b, a)).run(clips)
    assert first.tokens.count == other.tokens.count == 24
    assert first.tokens.size is not None
    assert other.tokens.size is not None
    assert torch.equal(first.tokens.size.sum(1), torch.full((3,), 48.0)), "what is dropped first is not merged"
    assert not torch.equal(other.tokens.size.sum(1), torch.full((3,), 48.0))


@torch.no_grad()
def test_a_composition_of_one_block_each_is_one_after_the_other() -> None:
    """Two parts that act in different blocks do what one part with both steps does."""
    for backbone in (VIDEO, IMAGE):
        host, clips = backbone.build()
        once = attach(host, RandomDrop((0.6, 0.5), at=(0, 2)))
        twice = attach(host, compose(RandomDrop(0.6, at=(0,)), RandomDrop(0.5, at=(2,))))
        assert torch.equal(once(clips), twice(clips))


@torch.no_grad()
def test_a_smaller_input_comes_before_everything() -> None:
    host, clips = VIDEO.build()
    for both in (compose(FewerFrames(2), STA(r=4)), compose(STA(r=4), FewerFrames(2))):
        fast = attach(host, both)
        assert fast.plan is not None
        assert fast.plan.attention[0] == 48
        assert fast(clips).shape == (3, 7)


@torch.no_grad()
def test_log_masses_and_pooling_of_any_part_count_for_all() -> None:
    host, clips = VIDEO.build()
    both = attach(host, compose(RandomMerge(0.5, at=(0,)), ToMe(r=2, at=(2,), proportional=True, pool="mean")))
    plain = attach(host, compose(RandomMerge(0.5, at=(0,)), ToMe(r=2, at=(2,), pool="mean")))
    assert not torch.allclose(both(clips), plain(clips))
    assert both._pool == plain._pool == "mass"


def test_capabilities_are_joined() -> None:
    caps = compose(STA(r=1), TopK(0.5)).capabilities
    assert caps.needs == {"key", "frames", "class_row", "received"}
    assert not caps.keeps_frames
    assert compose(STA(r=1), GridKeep(0.5)).capabilities.keeps_frames
    assert not compose(Unreduced(), Unreduced()).capabilities.changes_length


def test_specs_are_joined_with_a_plus_and_built_again() -> None:
    both = compose(STA(r=(3, 1), at=(0, 1)), compose(TopK(0.5), Unreduced()))
    assert both.spec == "sta:r=[3,1],at=[0,1]+topk:keep=0.5+none"
    again = tokred.build(both.spec)
    assert isinstance(again, Composed)
    assert again.spec == both.spec
    assert [type(part) for part in parts_of(again)] == [STA, TopK, Unreduced]


def test_notes_and_descriptions_of_all_parts() -> None:
    host, _ = VIDEO.build()
    fast = attach(host, compose(EViT(0.5, at=(0,)), ToMe(r=40, at=(1,))))
    assert fast.notes[0].startswith("block 1: r = 40 clamped to 24")
    assert fast.notes[1] == "EViT-style (received attention), rest fused"


def test_what_cannot_follow_each_other_is_refused() -> None:
    host, _ = VIDEO.build()
    with pytest.raises(
        ComposeError, match="fewer_frames:tubelets=2 and lower_resolution:rows=2 both make the input smaller"
    ):
        compose(FewerFrames(2), LowerResolution(2))
    with pytest.raises(ComposeError, match="compose needs at least two reducers, got 1"):
        compose(STA(r=1))
    with pytest.raises(ScheduleError, match=r"sta:r=2 at block 0 needs 4 equal temporal groups, .* in none"):
        attach(host, compose(TopK(0.5, at=(0,)), STA(r=2)))
    with pytest.raises(ScheduleError, match="r = 20 per frame at block 0 drops 20 of 12 tokens"):
        attach(host, compose(GridKeep(0.5, at=(0,)), STA(r=20, at=(0,))))


def test_two_stateful_parts_are_refused() -> None:
    one, two = STA(r=1), STA(r=2)
    for part in (one, two):
        part.capabilities = Capabilities(stateful=True)
    with pytest.raises(ComposeError, match="sta:r=1 and sta:r=2 both keep state between forwards"):
        compose(one, two)


def test_a_composition_has_no_settings_of_its_own() -> None:
    both = compose(STA(r=1), Unreduced())
    with pytest.raises(ComposeError, match="no settings of its own"):
        both.with_(r=3)
    with pytest.raises(ScheduleError, match=r"sta:r=1\+none has no strength to solve for"):
        both.strength_range(None)  # type: ignore[arg-type]
    assert parts_of(both) == both.parts


def test_resetting_resets_every_part() -> None:
    asked = []

    class Stateful(Unreduced):
        def reset(self) -> None:
            asked.append(self)

    a, b = Stateful(), Stateful()
    compose(a, b).reset()
    assert asked == [a, b]
