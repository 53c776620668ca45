from __future__ import annotations

from dataclasses import replace

from tokred.backbones.geometry import Geometry
from tokred.tokens import Grid

VIDEO = Geometry(
    depth=6, dim=24, heads=3, head_dim=8, mlp_hidden=48, grid=Grid(4, 5, 6), prefix=2, classes=7, kernel=(2, 8, 16)
)


def test_tokens_are_patches_and_prefix() -> None:
    assert VIDEO.tokens == 2 + 4 * 5 * 6


def test_the_input_is_the_grid_in_pixels() -> None:
    assert VIDEO.input_shape() == (1, 3, 8, 40, 96)
    assert VIDEO.input_shape(4, Grid(1, 2, 3)) == (4, 3, 2, 16, 48)


def test_an_image_has_no_time_axis() -> None:
    image = replace(VIDEO, video=False, grid=Grid(1, 5, 6), kernel=(1, 8, 16), in_chans=1)
    assert image.input_shape(2) == (2, 1, 40, 96)
