from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import Specimen, about

from tokred.methods import STA, TopK
from tokred.testing import Case, default_backbones
from tokred.testing.export import check_serialisation


@pytest.mark.parametrize("wrong", about("check_serialisation", "check_inference_mode"), ids=lambda wrong: wrong.reducer)
def test_what_does_not_survive_export_is_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


def test_a_class_inside_a_function_is_not_asked_to_be_pickled() -> None:
    class Local(TopK):
        pass

    check_serialisation(Case(Local(keep=0.5), default_backbones()[0]))


def test_settings_with_lists_are_built_again_from_the_spec() -> None:
    check_serialisation(Case(STA(r=(3, 1), at=(0, 2)), default_backbones()[0]))
