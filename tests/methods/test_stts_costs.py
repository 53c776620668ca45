"""STTS: what its scorers cost, counted from their weights."""

from __future__ import annotations

import pytest
from torch import nn

from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.measure.handles import fvcore_macs
from tokred.methods import STTS
from tokred.testing import default_backbones
from tokred.tokens import Grid
from tokred.two_stage import CutStep

VIDEO = default_backbones()[0]
REGISTERS = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=96, grid=Grid(4, 2, 2), prefix=5, classes=7, kernel=(2, 4, 4)
)
"""A class token and four registers in front of frames of four patches."""


def weights(reducer: STTS, kind: str) -> int:
    """Multiply-adds of one position: one for each weight of a scorer's linear layers."""
    layers = reducer.get_submodule(f"{kind}_score_predictor").modules()
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(
    ("time", "space", "frames", "tokens"),
    [(0.5, 1.0, 4, 0), (1.0, 0.5, 0, 16), (0.5, 0.5, 4, 8), (1.0, 1.0, 0, 0)],
)
def test_each_frame_and_each_token_that_is_scored_costs_the_weights_of_its_scorer(
    time: float, space: float, frames: int, tokens: int
) -> None:
    """The frames that are left are the ones whose squares are scored; class tokens and registers never are."""
    reducer = STTS(time=time, space=space, weights=None)
    reducer.build_for(24, 24)
    cost = reducer.macs(5 + 16, REGISTERS, CutStep(0, 0, "keep", time * space, time, space))
    assert cost == frames * weights(reducer, "time") + tokens * weights(reducer, "space")
    assert isinstance(cost, int), "multiply-adds are whole numbers, also where they are written to a file"


def test_fewer_frames_that_are_left_by_an_earlier_step_are_fewer_to_score() -> None:
    reducer = STTS(time=0.5, space=0.5, weights=None)
    reducer.build_for(24, 24)
    cost = reducer.macs(5 + 12, REGISTERS, CutStep(0, 0, "keep", 0.5, 0.5, 1.0))
    assert cost == 3 * weights(reducer, "time")
    assert reducer.macs(5 + 8, REGISTERS, CutStep(0, 0, "keep", 0.5, 0.5, 1.0)) == 0, "both are kept without a score"


def test_the_shared_half_is_multiplied_once_and_all_else_as_published() -> None:
    """Per row of positions one vector meets half of one layer's columns, instead of one for each position."""
    host, clips = VIDEO.build()
    fast = attach(host, STTS(time=0.5, space=0.5, time_at=0, space_at=1, weights=None)).eval()
    counted = fvcore_macs(fast, (clips[:1],)).by_module
    assert fast.plan is not None
    first, second = fast.plan.steps
    for step, kind, rows, positions, width in (
        (first, "time", 1, 4, 48),
        (second, "space", 2, 24, 24),
    ):
        assert isinstance(fast.reducer, STTS)
        assert step.macs == rows * positions * weights(fast.reducer, kind)
        spared = rows * (positions - 1) * (width // 2) * (width // 2)
        norm = 5 * rows * positions * width
        assert counted[f"reducer.{kind}_score_predictor"] == step.macs - spared + norm
