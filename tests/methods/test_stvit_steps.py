"""STViT and STViT-R: before which block they act, what each of their steps costs, what they start from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tokred.attach import attach
from tokred.backbones.geometry import Geometry, Stage
from tokred.measure.handles import fvcore_macs
from tokred.methods import STViT, STViTR
from tokred.reducer import Promise
from tokred.schedule import ScheduleError
from tokred.testing import default_backbones
from tokred.tokens import Grid

VIDEO, IMAGE, WINDOWS = default_backbones()


def swin(*depths: int) -> Geometry:
    """Stages of 56 x 56, 28 x 28, ... tokens in windows of 7 x 7."""
    stages = tuple(Stage(depth, 32 * 2**i, 2**i, (1, 7, 7)) for i, depth in enumerate(depths))
    known: dict[str, Any] = {"final_norm_tokens": True, "class_token": False, "stages": stages, "embed_norm": True}
    return Geometry(sum(depths), 32, 1, 32, 128, Grid(1, 56, 56), 0, 1000, (1, 4, 4), **known)


@pytest.mark.parametrize(
    ("depths", "block"),
    [
        ((2, 2, 6, 2), 8),  # Swin-T: four of the six layers of the third stage come first
        ((2, 2, 18, 2), 16),
        ((9, 2, 6, 2), 15),  # the first stage is the longest
        ((1, 3, 1, 3), 3),  # the earlier of two
        ((5, 2), 6),
        ((3, 4), 5),
        ((6,), 4),  # no other stage than the first
    ],
)
def test_with_windows_tokens_are_made_after_two_thirds_of_the_longest_stage_but_the_first(
    depths: tuple[int, ...], block: int
) -> None:
    assert list(STViT(3).steps(swin(*depths))) == [block]


@pytest.mark.parametrize(("depth", "block"), [(12, 4), (24, 8), (4, 1), (2, 0)])
def test_without_windows_they_are_made_after_a_third_of_the_blocks(depth: int, block: int) -> None:
    geometry = Geometry(depth, 64, 1, 64, 256, Grid(1, 14, 14), 0, 1000, (1, 16, 16))
    assert list(STViT().steps(geometry)) == [block]


@pytest.mark.parametrize("at", [-1, 4, 5, 100])
def test_a_block_that_is_not_there_is_refused(at: int) -> None:
    host, _ = IMAGE.build()
    with pytest.raises(ScheduleError, match=rf"at = {at} is not in 0\.\.3"):
        attach(host, STViT(2, at=at))


@pytest.mark.parametrize(
    ("backbone", "reducer"),
    [
        (VIDEO, STViT(2, layers=4, keys="frame")),
        (IMAGE, STViT(3)),
        (VIDEO, STViTR(2, layers=3, keys="frame")),
        (IMAGE, STViTR(3, units=2)),
    ],
    ids=["frames", "image", "unit", "units"],
)
def test_each_step_costs_what_fvcore_counts_in_its_layers(backbone: Any, reducer: STViT | STViTR) -> None:
    """Steps of a unit: its generation, then its recovery."""
    host, pixels = backbone.build()
    fast = attach(host, reducer)
    counted = fvcore_macs(fast, (pixels[:1],))
    assert fast.plan is not None
    found = [step.executed_macs for step in fast.plan.steps]
    assert found == [step.macs for step in fast.plan.steps], "nothing is computed that the papers do not count"
    units = len(fast.reducer.get_submodule("generation"))  # type: ignore[arg-type]
    kinds = ("generation", "recovery") if isinstance(reducer, STViTR) else ("generation",)
    assert found == [counted.by_module[f"reducer.{kind}.{unit}"] for unit in range(units) for kind in kinds]


@pytest.mark.parametrize("keys", ["clip", "frame"])
def test_steps_cost_what_their_layers_cost_with_windows(keys: str) -> None:
    host, clips = WINDOWS.build()
    fast = attach(host, STViT(3, keys=keys))
    assert fast.plan is not None
    (step,) = fast.plan.steps
    assert fvcore_macs(fast, (clips[:1],)).by_module["reducer.generation.0"] == step.executed_macs


def test_what_is_promised_is_what_the_plan_does() -> None:
    """Of 8 x 8 patches a generation leaves 3 x 3 tokens, and a recovery all patches again."""
    host, _ = IMAGE.build()
    fast = attach(host, STViTR(3, units=2))
    plan = fast.plan
    assert plan is not None
    counts = [(step.block, step.n_in - 2, step.n_out - 2) for step in plan.steps]
    assert counts == [(0, 64, 9), (1, 9, 64), (2, 64, 9), (3, 9, 64)]
    own: Any = fast.reducer
    steps = own.steps(fast.geometry)
    for block, before, after in counts:
        assert own.promise(steps[block], before, 1, fast.geometry) == Promise(after, 1)


def test_windows_are_promised_a_smaller_grid_and_other_backbones_none() -> None:
    for geometry, grid in ((swin(2, 2, 6, 2), Grid(1, 3, 3)), (attach(IMAGE.build()[0], STViT(3)).geometry, None)):
        reducer = STViT(3)
        (step,) = reducer.steps(geometry).values()
        seen = reducer.seen(geometry)
        assert reducer.promise(step, seen.grid.patches, 1, seen) == Promise(9, 1, grid=grid)


def test_untrained_layers_start_alike_in_both_methods_and_differ_from_unit_to_unit() -> None:
    """A comparison of the two compares where tokens are made, not two draws of the weights."""
    host, _ = IMAGE.build()
    one, units = attach(host, STViT(3, weights=None)).reducer, attach(host, STViTR(3, units=2, weights=None)).reducer
    own, others = (dict(reducer.named_parameters()) for reducer in (one, units))
    for name, parameter in own.items():
        assert torch.equal(parameter, others[name]), name
    drawn = [f"{part}.attn.q.weight" for part in ("generation.0.layers.0", "generation.1.layers.0")]
    drawn += [f"recovery.{unit}.attn.q.weight" for unit in range(2)]
    assert len({tuple(others[name].flatten().tolist()) for name in drawn}) == 4
