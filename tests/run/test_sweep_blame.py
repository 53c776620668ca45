"""The setting without which the error is gone is to blame."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from tokred.run.sweep_blame import blame

PLACES = {"a": "axes[0].a", "b": "axes[1].b", "c": "axes[2].c"}


def grid(**axes: list[Any]) -> list[dict[str, Any]]:
    return [{**dict(zip(axes, values, strict=True)), "seed": 0} for values in product(*axes.values())]


def bad(points: list[dict[str, Any]], check: Any) -> list[str]:
    return blame([point for point in points if check(point) is not None], check, PLACES)


def test_one_bad_value_is_named_once_with_its_points() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        return "400 is not below 196" if values.get("b") == 400 else None

    assert bad(grid(a=[1, 2], b=[8, 400]), check) == ["axes[1].b: 400: 400 is not below 196 (in 2 points)"]


def test_several_bad_values_are_each_named() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        wrong = [key for key in "abc" if values.get(key) == "x"]
        return f"'spec:{values}': {wrong[0]} is wrong" if wrong else None

    found = bad(grid(a=["x"], b=["x", 1], c=["x", 2]), check)
    assert [line.partition(": ")[0] for line in found] == ["axes[0].a", "axes[1].b", "axes[2].c"]
    assert [line.rpartition(": ")[2] for line in found] == [
        f"{key} is wrong (in {count} points)" for key, count in (("a", 4), ("b", 2), ("c", 2))
    ]


def test_values_that_are_wrong_together_are_named_together() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        return "not both" if values.get("a") == values.get("b") == 1 else None

    assert bad(grid(a=[0, 1], b=[0, 1]), check) == ["axes[0].a: 1 with axes[1].b: 1: not both"]


def test_a_knob_is_to_blame_and_not_the_method_that_has_it() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        if "b" in values and values.get("a") != "sta":
            return "'none:b': unknown setting b"
        return "too large" if values.get("b") == 400 else None

    assert bad(grid(a=["sta"], b=[8, 400]), check) == ["axes[1].b: 400: too large"]


def test_where_no_axis_is_to_blame_it_is_the_base() -> None:
    assert bad(grid(a=[0, 1]), lambda values: "no such file") == ["base: no such file (in 2 points)"]
