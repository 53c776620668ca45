from __future__ import annotations

import pytest
import torch

from tokred.attach import attach
from tokred.methods import Unreduced
from tokred.testing import ImageShape, VideoShape, WindowShape


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [
        (VideoShape((3, 2, 5), dim=12, heads=2, depth=3, layer_scale=True), 30),
        (ImageShape((2, 5), dim=8, heads=1, depth=4, registers=2), 13),
        (ImageShape((3, 3), dim=8, heads=2, depth=4, class_token=False, qk_norm=True), 9),
        (WindowShape((2, 5, 7), dim=8, window=(1, 2, 3)), 70),
    ],
)
def test_a_model_has_the_sizes_of_its_shape_and_is_the_same_every_time(
    shape: VideoShape | ImageShape | WindowShape, tokens: int
) -> None:
    (model, clips), (again, same) = shape.build(), shape.build()
    geometry = attach(model, Unreduced()).geometry
    assert (geometry.tokens, geometry.dim) == (tokens, shape.dim)
    assert torch.equal(clips, same)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert shape.backbone.name == repr(shape)
    assert len(clips) == 3
