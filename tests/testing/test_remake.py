from __future__ import annotations

import pytest
from testing.zoo import spec

from tokred.compose import compose
from tokred.methods import STA, ToMe, TopK
from tokred.registry import build
from tokred.testing.failures import Broken
from tokred.testing.remake import expect_settings_alone, remade


def test_a_reducer_is_made_again_and_a_composition_by_its_parts() -> None:
    (again,) = remade(ToMe(r=3))
    assert (type(again), again.config) == (ToMe, ToMe(r=3).config)
    assert [type(part) for part in remade(compose(ToMe(r=1), TopK(keep=0.5)))] == [ToMe, TopK]


def test_lists_that_are_handed_in_stay_as_they_are() -> None:
    expect_settings_alone(STA(r=(3, 1), at=(0, 2)))
    with pytest.raises(Broken, match=r"at = \[0\], a caller's list"):
        expect_settings_alone(build(spec("MutatesSettings")))
