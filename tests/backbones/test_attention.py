"""Fused attention with the log-mass bias, and smaller pixels."""

from __future__ import annotations

import pytest
import torch

from tokred.backbones.attention import attend_fused, shrink_pixels


def test_the_bias_is_the_explicit_softmax() -> None:
    q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    size = torch.randint(1, 9, (2, 7)).float()
    wanted = (q @ k.transpose(-1, -2) * 0.3 + size.log()[:, None, None]).softmax(-1) @ v
    torch.testing.assert_close(attend_fused(q, k, v, 0.3, size.log()), wanted, atol=1e-5, rtol=1e-5)


def test_masses_of_one_change_nothing() -> None:
    q, k, v = torch.randn(3, 2, 4, 7, 8).unbind(0)
    plain = attend_fused(q, k, v, 0.3, None)
    torch.testing.assert_close(attend_fused(q, k, v, 0.3, torch.zeros(2, 7)), plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (2, 3, 4, 8, 12)])
def test_pixels_shrink_frame_by_frame(shape: tuple[int, ...]) -> None:
    pixels = torch.randn(shape)
    small = shrink_pixels(pixels, 4, 6)
    assert small.shape == (*shape[:-2], 4, 6)
    assert shrink_pixels(pixels, 8, 12) is pixels
    if len(shape) == 5:
        torch.testing.assert_close(small[:, :, 1], shrink_pixels(pixels[:, :, 1], 4, 6))
    constant = shrink_pixels(torch.full(shape, 0.7), 4, 6)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.7))
