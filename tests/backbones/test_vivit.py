"""The factorised ViViT: one spatial pass per tubelet, a temporal one on top."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tokred.backbones.vivit import ViViT

SIZES = {"img_size": 32, "patch_size": 8, "frames": 8, "dim": 24, "depth": 2, "temporal_depth": 2, "num_heads": 3}


def build(**changes: object) -> ViViT:
    torch.manual_seed(0)
    model = ViViT(**{**SIZES, "num_classes": 5, **changes})  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def test_it_is_its_two_models_step_by_step() -> None:
    model, clips = build(), torch.randn(2, 3, 8, 32, 32)
    spatial, temporal = model.spatial_model, model.temporal_model
    steps = [spatial(model.embedding.conv(clips[:, :, 2 * t : 2 * t + 2]).flatten(2).transpose(1, 2)) for t in range(4)]
    torch.testing.assert_close(model(clips), model.head(temporal(torch.stack(steps, dim=1))), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_each_step_sees_its_own_frames_alone() -> None:
    model, clips = build(), torch.randn(1, 3, 8, 32, 32)
    other = clips.clone()
    other[:, :, 6:] += 1
    ours, theirs = (model.spatial_model(model.patches(c)) for c in (clips, other))
    assert torch.equal(ours[:3], theirs[:3])
    assert not torch.allclose(ours[3], theirs[3])


@torch.no_grad()
def test_other_pixels_get_resampled_positions() -> None:
    model = build()
    assert model(torch.randn(1, 3, 8, 48, 32)).shape == (1, 5)
    table = model.positions(6, 4)
    assert table.shape == (1, 25, 24)
    assert torch.equal(table[:, 0], model.positions(4, 4)[:, 0])


@pytest.mark.parametrize("shape", [(1, 3, 6, 32, 32), (1, 1, 8, 32, 32), (1, 3, 8, 33, 32), (3, 8, 32, 32)])
def test_clips_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be|multiple"):
        build()(torch.zeros(shape))


@pytest.mark.parametrize("change", [{"patch_size": 7}, {"frames": 7}, {"num_heads": 5}])
def test_sizes_that_do_not_divide_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="divide"):
        build(**change)


def test_the_base_model_has_the_published_sizes() -> None:
    with torch.device("meta"):
        model = ViViT()
    assert model.grid == (16, 14, 14)
    # ViViT, table 2: 115.1 million.
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == 115.1
