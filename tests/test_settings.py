from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

from tokred.settings import SettingError, check_settings

if TYPE_CHECKING:
    from nowhere import Unknown


def method(
    r: int | tuple[int, ...] = 0,
    keep: float | None = None,
    fuse: bool = True,
    order: str = "F",
    pair: tuple[int, str] = (1, "a"),
    mode: Literal["a", "b"] = "a",
    anything: Any = None,
    unannotated=None,
) -> None: ...


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 3},
        {"r": (1, 2)},
        {"r": [1, 2]},
        {"r": ()},
        {"keep": 1},
        {"keep": 0.5},
        {"keep": None},
        {"fuse": False},
        {"order": "B"},
        {"pair": (3, "x")},
        {"mode": "b"},
        {"anything": object()},
        {"unannotated": object()},
        {"not_a_parameter": 1},
    ],
)
def test_values_of_the_declared_kind_pass(settings: dict[str, Any]) -> None:
    check_settings(method, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 1.0}, r"r = 1.0 is not a whole number or a list of whole numbers"),
        ({"r": True}, r"r = True is not a whole number"),
        ({"r": (1, "2")}, r"r = \(1, '2'\) is not a whole number or a list of whole numbers"),
        ({"keep": "half"}, r"keep = 'half' is not a number or none"),
        ({"keep": float("nan")}, r"keep = nan is not a number or none"),
        ({"keep": False}, r"keep = False is not a number or none"),
        ({"fuse": "no"}, r"fuse = 'no' is not true or false"),
        ({"fuse": 1}, r"fuse = 1 is not true or false"),
        ({"order": 3}, r"order = 3 is not a word"),
        ({"pair": (1, 2)}, r"pair = \(1, 2\) is not a list"),
        ({"pair": (1,)}, r"pair = \(1,\) is not a list"),
        ({"mode": "c"}, r"mode = 'c' is not one of a, b"),
    ],
)
def test_values_of_another_kind_are_refused_with_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check_settings(method, settings)


def test_annotations_that_only_a_type_checker_can_read_are_not_checked() -> None:
    def odd(a: Unknown, r: int) -> None: ...

    check_settings(odd, {"a": 1, "r": "x"})
