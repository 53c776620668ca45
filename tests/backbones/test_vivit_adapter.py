"""Reducers on the factorised ViViT: they act in its spatial blocks, on all steps at once, and are counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tokred
from tokred.backbones import adapter_for
from tokred.backbones.adapter import Unsupported
from tokred.backbones.vivit import ViViT
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.handles import fvcore_macs
from tokred.schedule import ScheduleError


@pytest.fixture
def model() -> ViViT:
    torch.manual_seed(0)
    made = ViViT(img_size=32, patch_size=8, frames=8, dim=24, depth=3, temporal_depth=2, num_heads=3, num_classes=5)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))


def test_the_closed_form_is_fvcores_count(model: ViViT, clips: torch.Tensor) -> None:
    geometry = adapter_for(model).geometry(model)
    assert geometry.input_shape(2) == tuple(clips.shape)
    assert count(geometry, unreduced_plan(geometry)).macs == fvcore_macs(model, (clips[:1],)).macs


@torch.no_grad()
@pytest.mark.parametrize(
    "spec", ["none", "sta:r=2", "tome:r=2", "evit:keep=0.6,at=[1]", "random_drop:keep=0.6", "ats:keep=0.7"]
)
def test_reducers_run_and_cost_what_is_planned(model: ViViT, clips: torch.Tensor, spec: str) -> None:
    fast = tokred.attach(model, tokred.build(spec))
    assert fast.plan is not None
    together = fast(clips)
    torch.testing.assert_close(torch.cat([fast(clip[None]) for clip in clips]), together)
    assert fvcore_macs(fast, (clips[:1],)).macs == count(fast.geometry, fast.plan).executed_macs
    if spec == "none":
        assert torch.equal(together, model(clips))
        assert tokred.detach(fast) is model


@torch.no_grad()
def test_random_choices_differ_from_step_to_step(model: ViViT, clips: torch.Tensor) -> None:
    fast = tokred.attach(model, tokred.build("random_drop:keep=0.5,at=[0]"))
    still = clips[:1, :, :2].repeat(1, 1, 4, 1, 1)
    ((_, step),) = fast.run(still, record=True).steps
    assert len({tuple(row.tolist()) for row in step.positions()}) > 1


def test_steps_come_apart_and_together_again(model: ViViT, clips: torch.Tensor) -> None:
    adapter = adapter_for(model)
    tokens = adapter.embed(model, clips, None)
    steps = adapter.steps(model, tokens)
    assert [step.x.shape for step in steps] == [(2, 17, 24)] * 4
    assert torch.equal(steps[1].x[1], tokens.x[5])
    assert torch.equal(adapter.joined(steps).x, tokens.x)


def test_what_it_has_not_is_refused(model: ViViT) -> None:
    with pytest.raises(ScheduleError, match="tubelets = 2"):
        tokred.attach(model, tokred.build("fewer_frames:tubelets=2"))

    class Other(ViViT):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return super().forward(clips) + 1

    with pytest.raises(Unsupported, match="forward"):
        tokred.attach(
            Other(img_size=16, patch_size=8, frames=4, dim=12, depth=1, temporal_depth=1, num_heads=2),
            tokred.build("none"),
        )
