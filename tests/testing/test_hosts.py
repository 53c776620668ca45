from __future__ import annotations

import torch

from tokred.attach import attach
from tokred.backbones.windows import window_layout
from tokred.methods import Unreduced
from tokred.testing import default_backbones


def test_the_same_model_and_inputs_every_time() -> None:
    for backbone in default_backbones():
        (one, clips), (two, again) = backbone.build(), backbone.build()
        assert torch.equal(clips, again)
        state = two.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def test_a_video_model_without_and_an_image_model_with_prefix_tokens() -> None:
    found = {b.name: attach(b.build()[0], Unreduced()).geometry for b in default_backbones()}
    assert found["video"].prefix == 0
    assert found["image"].prefix == 2
    assert found["video"].grid.t > 1
    assert found["video"].grid.h != found["video"].grid.w  # a swapped axis must show


def test_a_model_whose_windows_are_padded_shifted_and_clipped() -> None:
    geometry = {b.name: attach(b.build()[0], Unreduced()).geometry for b in default_backbones()}["windows"]
    grids = [geometry.stage_grid(stage) for stage in range(3)]
    windows = [stage.window for stage in geometry.stages]
    layouts = [window_layout(grid, window, True) for grid, window in zip(grids, windows, strict=True)]
    assert len(layouts[0].pads) > 0
    assert len(layouts[1].pads) > 0
    assert geometry.stages[1].depth > 1, "the second block of a stage shifts"
    assert all(layouts[1].shift)
    assert layouts[2].window[1] < windows[2][1]
    assert any(length % 2 for length in grids[0][1:]), "patch merging meets an odd map"


def test_logits_of_the_hosts_differ_between_samples_and_react_to_each_patch() -> None:
    for backbone in default_backbones():
        model, clips = backbone.build()
        x = clips.clone().requires_grad_()
        logits = model(x)
        assert logits.std(dim=0).min() > 1e-3
        logits.square().sum().backward()
        assert x.grad is not None
        assert (x.grad.abs() > 0).float().mean() > 0.99
