"""What is left of a sweep when all that is wrong is taken out."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.run.sweep_repair import NAME, repaired

CONTENT: dict[str, Any] = {
    "name": "x",
    "base": {"clips": 3, "budget": 0.5},
    "axes": [{"label": ["a", "b", "c"], "reducer.r": [1, 2, 3]}, {"clips": [4]}],
    "seeds": [0, 1, 2],
    "excludes": [{"when": {"clips": 4}, "reason": "x"}, {"when": {"label": "a"}, "reason": "y"}],
    "profiles": {"nano": {"seeds": [3, 4], "axes": [None, {"clips": [5, 6]}]}},
    "paper": {"rows": [{"at": {"label": "a"}, "value": 1.0}, {"at": {"label": "b"}, "value": 2.0}]},
}


def left(*places: tuple[int | str, ...], **changes: Any) -> dict[str, Any]:
    return repaired({**CONTENT, **changes}, places).model_dump()


def test_one_value_is_taken_out_with_those_that_move_with_it() -> None:
    assert left(("axes", 0, "label", 1), ("axes", 0, "label", 0))["axes"][0] == {"label": ["c"], "reducer.r": [3]}
    assert left(("profiles", "nano", "axes", 1, "clips", 0))["profiles"]["nano"]["axes"] == [None, {"clips": [6]}]
    assert left(("axes", 1, "clips", 0))["axes"][1] == {}


def test_a_key_and_a_setting_are_taken_out_alone() -> None:
    assert left(("axes", 0, "label"))["axes"][0] == {"reducer.r": [1, 2, 3]}
    assert left(("base", "clips"))["base"]["clips"] is None
    assert left(("base", "clips"))["base"]["budget"] == 0.5
    profiles = {"nano": {"base": {"views": ["x", 3], "clips": 7}}}
    place = ("profiles", "nano", "base", "views", 0)
    assert left(place, profiles=profiles)["profiles"]["nano"]["base"] == {"clips": 7}
    axes = [{1: 2, "clips": [4]}]
    assert left(("axes", 0, 1), ("axes", 0, 1, "[key]"), axes=axes)["axes"] == [{"clips": [4]}]
    assert left(("seeds", 0), ("seeds", 2))["seeds"] == [1]


def test_what_lacks_something_is_replaced_and_the_others_keep_their_places() -> None:
    found = left(excludes=[{"when": {"clips": 4}}, CONTENT["excludes"][1]])["excludes"]
    assert found[1] == {"when": {"label": "a"}, "reason": "y"}
    rows = left(paper={"rows": [3, CONTENT["paper"]["rows"][1]], "effects": [{"from": {}}]})["paper"]
    assert rows["rows"][1]["at"] == {"label": "b"}
    assert len(rows["effects"]) == 1


@pytest.mark.parametrize("key", [key for key in CONTENT if key != "name"])
@pytest.mark.parametrize("junk", [3, "x", [1], {"a": 1}, None, [[1]], [{}]])
def test_something_is_left_whatever_stands_there(key: str, junk: Any) -> None:
    assert left((key,), **{key: junk})["name"] == "x"
    assert left(**{key: junk})["name"] == "x"


def test_a_name_is_needed_and_given() -> None:
    assert left(("name",))["name"] == NAME
    assert repaired({"name": 3}, ()).name == NAME
