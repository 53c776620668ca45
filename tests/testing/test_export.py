from __future__ import annotations

from collections.abc import Callable

import pytest

from tokred.methods import STA, TopK
from tokred.testing import Case, default_backbones
from tokred.testing.export import check_serialisation


@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("CarriesALambda", "check_serialisation", "pickle"),
        ("HiddenSetting", "check_serialisation", "made of its settings"),
        ("OtherWhenCompiled", "check_compile", "the same logits under torch.compile"),
        ("NeedsAutograd", "check_inference_mode", "does not require grad"),
    ],
)
def test_what_does_not_survive_export_is_caught(caught: Callable[..., str], name: str, check: str, says: str) -> None:
    assert says in caught(name, check)


def test_a_class_inside_a_function_is_not_asked_to_be_pickled() -> None:
    class Local(TopK):
        pass

    check_serialisation(Case(Local(keep=0.5), default_backbones()[0]))


def test_settings_with_lists_are_built_again_from_the_spec() -> None:
    check_serialisation(Case(STA(r=(3, 1), at=(0, 2)), default_backbones()[0]))
