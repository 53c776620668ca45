"""The trajectory sum: how much of a frame the next one repeats."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import tokred
from tokred.backbones.videomae import VideoViT
from tokred.measure.trajectory import in_frames, path_sum, trajectory


@pytest.fixture
def model() -> VideoViT:
    torch.manual_seed(0)
    return VideoViT(
        img_size=16, patch_size=4, tubelet_size=2, frames=8, dim=24, depth=3, num_heads=3, num_classes=5
    ).eval()


def by_hand(x: torch.Tensor, frames: list[list[int]]) -> float:
    """One clip, token by token."""
    x = F.normalize(x, dim=-1)
    sums = []
    for start in frames[0]:
        at, total = start, 0.0
        for tokens in frames[1:]:
            best = max(tokens, key=lambda j: float(x[at] @ x[j]))
            total += float(x[at] @ x[best])
            at = best
        sums.append(total)
    return sum(sums) / len(sums)


def test_it_follows_the_most_similar_token_from_frame_to_frame() -> None:
    x = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(0))
    present = torch.zeros(2, 3, 12, dtype=torch.bool)
    frames = [[[0, 1, 2], [3, 4, 5, 6], [7, 8]], [[0, 3], [1, 4, 9], [2, 5, 11]]]
    for clip, groups in enumerate(frames):
        for frame, tokens in enumerate(groups):
            present[clip, frame, tokens] = True
    found = path_sum(x, present)
    for clip, groups in enumerate(frames):
        assert found[clip].item() == pytest.approx(by_hand(x[clip], groups), abs=1e-5)


def test_frames_that_repeat_have_the_largest_sum() -> None:
    frame = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    x = frame.repeat(1, 5, 1)
    present = torch.eye(5, dtype=torch.bool).repeat_interleave(4, dim=1)[None]
    assert path_sum(x, present).item() == pytest.approx(4.0, abs=1e-5)


def test_an_empty_frame_has_no_sum() -> None:
    present = torch.ones(1, 3, 4, dtype=torch.bool)
    present[0, 1] = False
    assert path_sum(torch.randn(1, 4, 6), present).isnan().all()


def test_a_merged_token_stands_in_every_frame_that_it_carries() -> None:
    source = torch.tensor([[0, 1, 0, 2, -1, 2]])  # 3 frames of 2 patches
    assert in_frames(source, 3, 3).tolist() == [[[True, True, False], [True, False, True], [False, False, True]]]


def test_dropping_tokens_changes_the_curve_behind_the_step_only(model) -> None:
    clips = torch.randn(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    whole = trajectory(tokred.attach(model, tokred.build("none")), clips)["trajectory"]
    kept = trajectory(tokred.attach(model, tokred.build("random_drop:keep=0.5,at=[1]")), clips)["trajectory"]
    assert whole.shape == kept.shape == (2, 3)
    torch.testing.assert_close(whole[:, 0], kept[:, 0])
    assert not torch.allclose(whole[:, 2], kept[:, 2])
    assert whole.abs().max() <= 3


def test_a_single_image_has_no_trajectory() -> None:
    model = tokred.create_backbone("vit_nano")
    found = trajectory(tokred.attach(model, tokred.build("none")), torch.randn(1, 3, 32, 32))["trajectory"]
    assert found.isnan().all()
