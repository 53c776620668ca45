"""Resizing, cropping and normalising pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.data.views import Views

HALF = {"mean": (0.45,) * 3, "std": (0.25,) * 3}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 100), st.integers(1, 100))
def test_scaled_picture_just_covers_the_view_and_keeps_its_shape(h: int, w: int, view_h: int, view_w: int) -> None:
    height, width = Views((view_h, view_w), **HALF).resized(h, w)
    assert height >= view_h
    assert width >= view_w
    assert height == view_h or width == view_w
    scale = max(view_h / h, view_w / w)
    assert h * scale - 1 < height <= h * scale + 1e-6
    assert w * scale - 1 < width <= w * scale + 1e-6


@pytest.mark.parametrize(
    ("size", "expected"), [((240, 427), (224, 398)), ((427, 240), (398, 224)), ((9, 9), (224, 224))]
)
def test_short_side_of_a_square_view(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Views((224, 224), **HALF).resized(*size) == expected


def test_picture_of_the_right_size_is_left_as_it_is() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    assert np.array_equal(Views((32, 32), **HALF).resize(picture).permute(1, 2, 0).numpy(), picture)


def test_resizing_keeps_a_flat_colour_and_aligns_pixel_centres() -> None:
    flat = np.full((50, 70, 3), (10, 128, 250), np.uint8)
    assert Views((32, 32), **HALF).resize(flat).flatten(1).unique(dim=1).tolist() == [[10], [128], [250]]
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    small = Views((32, 32), **HALF, antialias=False).resize(ramp)[0, 0]
    assert torch.equal(small, torch.arange(0, 256, 8, dtype=torch.uint8) + 2)


def test_antialiasing_averages_what_plain_bilinear_skips() -> None:
    stripes = np.zeros((100, 100, 3), np.uint8)
    stripes[:, ::10] = 255
    plain = Views((10, 10), **HALF, antialias=False).resize(stripes)
    smooth = Views((10, 10), **HALF).resize(stripes)
    assert plain.max() == 0
    assert smooth.float().mean().item() == pytest.approx(25.5, abs=2)


@pytest.mark.parametrize("wide", [True, False])
def test_three_crops_are_both_ends_and_the_centre_of_the_long_side(wide: bool) -> None:
    pictures = torch.arange(20, dtype=torch.uint8).expand(2, 3, 9, 20)
    pictures = pictures if wide else pictures.transpose(2, 3)
    crops = Views((9, 9), **HALF, crops=3).cut(pictures)
    assert [tuple(crop.shape) for crop in crops] == [(3, 2, 9, 9)] * 3
    assert [int(crop[0, 0, 0, 0]) for crop in crops] == [0, 5, 11]
    assert [int(crop[0, 0, -1, -1]) for crop in crops] == [8, 13, 19]
    (centre,) = Views((9, 9), **HALF).cut(pictures)
    assert torch.equal(centre, crops[1])


def test_crops_of_a_square_are_all_the_same() -> None:
    pictures = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(2, 3, 8, 8)
    first, *others = Views((8, 8), **HALF, crops=3).cut(pictures)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("constants", [HALF, IMAGENET])
def test_normalisation_is_per_channel_and_leaves_the_pixels_alone(constants: dict) -> None:
    pixels = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8)
    before = pixels.clone()
    out = Views((5, 6), **constants).normalise(pixels)
    assert out.dtype == torch.float32
    assert torch.equal(pixels, before)
    for channel in range(3):
        expected = (pixels[:, channel].double() / 255 - constants["mean"][channel]) / constants["std"][channel]
        assert torch.allclose(out[:, channel].double(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"crops": 2}, "crops = 2 is not 1 or 3"), ({"size": (0, 8)}, "size = "), ({"std": (1.0, 0.0, 1.0)}, "std = ")],
)
def test_impossible_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Views(**{"size": (8, 8), **HALF, **changes})
