"""The patch grid of a video model."""

from __future__ import annotations

import pytest

from tokred.backbones.sizes import patch_grid
from tokred.tokens import Grid


def test_sizes_are_divided_by_patches_and_tubelets() -> None:
    assert patch_grid(224, 16, 16, 2) == ((224, 224), Grid(8, 14, 14))
    assert patch_grid((16, 24), 9, 8, 3) == ((16, 24), Grid(3, 2, 3))


@pytest.mark.parametrize("sizes", [((16, 20), 4, 8, 2), ((20, 16), 4, 8, 2), (16, 5, 8, 2)])
def test_what_does_not_divide_is_refused_with_the_numbers(sizes: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"patch 8 must divide \d+x\d+ pixels and tubelet 2 must divide \d frames"):
        patch_grid(*sizes)
