from __future__ import annotations

import pytest
import torch
from hypothesis import find, given, settings
from hypothesis import strategies as st

from tokred import testing
from tokred.attach import attach
from tokred.methods import Unreduced
from tokred.schedule import Schedule
from tokred.testing import Backbone, StepExample
from tokred.tokens import Grid, Tokens


@given(testing.grids())
def test_grids_have_at_least_one_patch(grid: Grid) -> None:
    assert min(grid) >= 1


@given(st.data(), st.sampled_from((torch.float32, torch.float16, torch.bfloat16, torch.float64)))
def test_features_are_finite_in_every_format(data: st.DataObject, dtype: torch.dtype) -> None:
    x = data.draw(testing.features(2, 3, 4, dtype))
    assert (x.shape, x.dtype) == ((2, 3, 4), dtype)
    assert bool(x.isfinite().all())


@given(testing.attention_maps(batch=1, heads=2, tokens=5))
def test_attention_maps_have_rows_that_sum_to_one(attention: torch.Tensor) -> None:
    assert attention.shape == (1, 2, 5, 5)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 2, 5))


@given(testing.token_sets())
def test_token_sets_are_tokens_that_a_step_may_find(tokens: Tokens) -> None:
    assert tokens.patch_count >= 1
    assert tokens.patch_count % tokens.grid.t == 0
    assert tokens.masses.shape == tokens.x.shape[:2]
    if tokens.groups is not None:
        assert tokens.by_frame().shape[1] == tokens.grid.t


@given(testing.schedules(depth=4, tokens=16))
def test_schedules_fit_the_depth(schedule: Schedule) -> None:
    assert all(0 <= step.block < 4 for step in schedule.steps(4))


@given(testing.steps())
def test_steps_have_a_host_of_whole_heads(example: StepExample) -> None:
    geometry = example.geometry
    assert geometry.heads * geometry.head_dim == geometry.dim
    assert example.patches >= 1
    assert not (example.windows and example.prefix)


@settings(max_examples=6)
@given(testing.backbones())
def test_backbones_are_hosts_that_can_be_attached_to(backbone: Backbone) -> None:
    model, clips = backbone.build()
    fast = attach(model, Unreduced())
    with torch.no_grad():
        assert fast(clips).shape[0] == len(clips) == 3


def test_examples_become_small() -> None:
    smallest = find(testing.steps(), lambda example: example.patches >= 3)
    assert smallest.patches == 3
    assert (smallest.batch, smallest.prefix, smallest.features, smallest.windows) == (1, 0, "normal", False)


def test_families_of_backbones_can_be_left_out() -> None:
    found = find(testing.backbones(video=False, image=False), lambda _: True)
    assert found.name.startswith("WindowShape(")


def test_what_the_module_does_not_have_is_said() -> None:
    assert testing.check_restore.name == "check_restore"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        testing.nothing  # noqa: B018
