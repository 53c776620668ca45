"""The setting without which the error is gone is to blame, if no point with it is right."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

from tokred.run.sweep_blame import UNKNOWN, Blame

PLACES = {"a": "axes[0].a", "b": "axes[1].b", "c": "axes[2].c", "reducer": "axes[3].reducer", "budget": "base.budget"}
PLACES |= {"reducer.b": "axes[1].reducer.b"}


def grid(**axes: list[Any]) -> list[dict[str, Any]]:
    return [{**dict(zip(axes, values, strict=True)), "seed": 0} for values in product(*axes.values())]


def told(points: list[dict[str, Any]], *checks: Any) -> list[str]:
    blame = Blame(points)
    for check in checks:
        blame.find(check)
    return blame.lines(PLACES, points)


def test_one_bad_value_is_named_once_with_its_points() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        return "too large" if values.get("b") == 400 else None

    assert told(grid(a=[1, 2], b=[8, 400]), check) == ["axes[1].b: 400: too large (in 2 points)"]


def test_several_bad_values_are_each_named() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        wrong = [key for key in "abc" if values.get(key) == "x"]
        return f"'spec:{values}': {wrong[0]} is wrong" if wrong else None

    found = told(grid(a=["x"], b=["x", 1], c=["x", 2]), check)
    assert [line.partition(": ")[0] for line in found] == ["axes[0].a", "axes[1].b", "axes[2].c"]
    assert [line.rpartition(": ")[2] for line in found] == [
        f"{key} is wrong (in {count} points)" for key, count in (("a", 4), ("b", 2), ("c", 2))
    ]


def test_values_that_are_wrong_together_are_named_together() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        return "not both" if values.get("a") == values.get("b") == 1 else None

    assert told(grid(a=[0, 1], b=[0, 1]), check) == ["axes[0].a: 1 with axes[1].b: 1: not both"]


def test_a_knob_is_to_blame_and_not_the_method_that_has_it() -> None:
    def check(values: Mapping[str, Any]) -> str | None:
        if "reducer.b" in values and values.get("reducer") != "sta":
            return "'none:b': unknown setting b"
        return "too large" if values.get("reducer.b") == 400 else None

    points = grid(**{"reducer": ["sta"], "reducer.b": [400]})
    assert told(points, check) == ["axes[1].reducer.b: 400: too large"]


def needs_strength(values: Mapping[str, Any]) -> str | None:
    """As for the multiply-adds: without a reducer there is none, and a budget has nothing to solve for."""
    method, budget = values.get("reducer", "none"), values.get("budget")
    if method == "none" and budget is not None:
        return "none has no strength to solve for"
    return f"{method} cannot go down to {budget:.0%}" if budget is not None and budget < 0.1 else None


def test_what_is_right_in_other_company_is_not_to_blame() -> None:
    points = grid(reducer=["none", "sta", "tome"], budget=[0.5, 1.0])
    assert told(points, needs_strength) == ["axes[3].reducer: none has no strength to solve for (in 2 points)"]


def test_the_reason_of_a_value_is_its_own_and_not_that_of_its_company() -> None:
    points = grid(reducer=["none", "sta"], budget=[0.01, 0.5])
    assert told(points, needs_strength) == [
        "axes[3].reducer: none has no strength to solve for (in 2 points)",
        "base.budget: 0.01: sta cannot go down to 1% (in 2 points)",
    ]


def test_what_one_check_has_found_does_not_hide_what_the_next_looks_for() -> None:
    def settings(values: Mapping[str, Any]) -> str | None:
        return "unknown" if "c" in values else "a = 'x' is not F or B" if values.get("a") == "x" else None

    def host(values: Mapping[str, Any]) -> str | None:
        return UNKNOWN if settings(values) else "b = 400 drops 400 of 64 at block 3: allowed is below 64" \
            if values.get("b") == 400 else None  # fmt: skip

    assert told(grid(a=["x", "F"], b=[400, 8], c=[1]), settings, host) == [
        "axes[0].a: 'x' is not F or B (in 2 points)",
        "axes[1].b: 400 is not below 64 at block 3 (in 2 points)",
        "axes[2].c: 1: unknown (in 4 points)",
    ]


def test_nothing_is_said_where_nothing_can_be_seen() -> None:
    assert told(grid(a=[1, 2]), lambda values: UNKNOWN) == []

    def unknown_method(values: Mapping[str, Any]) -> str | None:
        return "no such method" if values.get("reducer", "none") == "stab" else None

    def refused(values: Mapping[str, Any]) -> str | None:
        return "has no such setting" if values.get("reducer", "none") == "none" and "reducer.b" in values else None

    points = grid(**{"reducer": ["stab"], "reducer.b": [1]})
    assert told(points, unknown_method, refused) == ["axes[3].reducer: stab: no such method"]
    points = grid(reducer=["stab"], budget=[0.5])
    assert told(points, unknown_method, needs_strength) == ["axes[3].reducer: stab: no such method"]


def test_where_no_setting_is_to_blame_it_is_the_base() -> None:
    assert told(grid(a=[0, 1]), lambda values: "no such file") == ["base: no such file (in 2 points)"]


def test_a_value_is_said_once_and_names_only_where_none_is_close() -> None:
    reasons = {
        1: "no such file or folder: 1 (allowed: a folder)",
        2: "12 of them are unknown",
        3: "unknown setting (did you mean a?): allowed are a, b, c",
        4: "unknown setting: allowed are a, b, c",
    }
    assert told(grid(a=[0, 1, 2, 3, 4]), lambda values: reasons.get(values.get("a", 0))) == [
        "axes[0].a: 2: 12 of them are unknown",
        "axes[0].a: 3: unknown setting (did you mean a?)",
        "axes[0].a: 4: unknown setting: allowed are a, b, c",
        "axes[0].a: no such file or folder: 1 (allowed: a folder)",
    ]
