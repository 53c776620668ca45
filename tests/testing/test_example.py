from __future__ import annotations

from tokred.attach import attach
from tokred.methods import Unreduced
from tokred.testing import StepExample
from tokred.testing.hosts import WINDOWS


def test_an_example_prints_as_the_call_that_makes_it() -> None:
    example = StepExample(grid=(2, 3, 4), prefix=1, features="huge")
    assert repr(example) == "StepExample(grid=(2, 3, 4), prefix=1, features='huge')"
    assert eval(repr(example)) == example
    assert repr(StepExample()) == "StepExample()"


def test_an_example_knows_its_host_and_how_many_patches_are_left() -> None:
    assert StepExample(grid=(2, 3, 4), gone=5).patches == 2 * 7
    staged = StepExample(grid=(2, 5, 5), windows=True, dim=8).geometry
    assert [stage.dim for stage in staged.stages] == [8, 16, 32]
    assert staged.depth == sum(stage.depth for stage in staged.stages)


def test_an_example_of_the_sizes_of_a_host() -> None:
    geometry = attach(WINDOWS.build()[0], Unreduced()).geometry
    like = StepExample.like(geometry)
    assert like.windows
    assert like.geometry.grid == geometry.grid
    assert [stage.dim for stage in like.geometry.stages] == [stage.dim for stage in geometry.stages]
