"""Changes from the command line."""

from __future__ import annotations

from typing import Any

import pytest

from tokred.run.sweep_set import apply_sets

CONTENT: dict[str, Any] = {
    "name": "orders",
    "base": {"clips": 9, "reducer": "sta:r=8"},
    "axes": [{"reducer.order": ["FBF", "BFB", "FFF"]}, {"reducer": ["sta", "tome"], "reducer.r": [8, 30]}],
    "profiles": {
        "nano": {"base": {"clips": 3}},
        "full": {"axes": [None, {"reducer": ["sta", "tome"], "reducer.r": [64, 65]}]},
    },
}


def changed(*sets: str, profile: str | None = None) -> dict[str, Any]:
    content, problems = apply_sets(CONTENT, sets, profile)
    assert problems == []
    return content


def test_a_setting_is_changed_where_the_profile_has_its_own() -> None:
    content = changed("base.clips=50", "seeds=[0, 1]")
    assert content["profiles"]["nano"] == {"base": {"clips": 50}, "seeds": [0, 1]}
    assert content["base"]["clips"] == 9
    assert CONTENT["profiles"]["nano"] == {"base": {"clips": 3}}
    assert changed("labels=motion", profile="full")["profiles"]["full"]["labels"] == "motion"


def test_a_knob_of_the_reducer_is_changed() -> None:
    assert changed("base.reducer.r=4")["profiles"]["nano"]["base"]["reducer"] == "sta:r=4"


def test_an_axis_is_found_by_its_key_or_the_last_component() -> None:
    for key in ("order", "reducer.order"):
        assert changed(f"axes.{key}=[FBF,FFF]")["axes"][0] == {"reducer.order": ["FBF", "FFF"]}


def test_keys_of_one_axis_and_profiles_of_the_same_length_go_along() -> None:
    content = changed("axes.reducer=[tome]")
    assert content["axes"][1] == {"reducer": ["tome"], "reducer.r": [30]}
    assert content["profiles"]["full"]["axes"][1] == {"reducer": ["tome"], "reducer.r": [65]}


def test_new_values_replace_those_that_are_run() -> None:
    content = changed("axes.reducer.r=[1,2]")
    assert content["axes"][1]["reducer.r"] == [1, 2]
    assert content["profiles"]["full"]["axes"][1]["reducer.r"] == [64, 65]


OTHER: dict[str, Any] = {
    "axes": [{"label": ["half", "third"], "budget": [0.5, 0.35]}],
    "profiles": {"nano": {}, "full": {"axes": [{"label": ["half", "third"], "reducer.r": [64, 89]}]}},
}


def test_a_key_that_only_another_profile_varies_is_refused() -> None:
    for key in ("reducer.r", "r"):
        content, problems = apply_sets(OTHER, [f"axes.{key}=[10,400]"])
        assert content == OTHER
        assert problems == [
            f"--set axes.{key}=[10,400]: profiles.full.axes[0] has it, and profile nano is run; allowed: label, budget"
        ]


def test_a_key_that_the_profile_replaces_selects_its_rows_and_has_no_other_values() -> None:
    content, problems = apply_sets(OTHER, ["axes.budget=[0.35]"], "full")
    assert problems == []
    assert content["profiles"]["full"]["axes"][0] == {"label": ["third"], "reducer.r": [89]}
    content, problems = apply_sets(OTHER, ["axes.budget=[0.6]"], "full")
    assert problems == ["--set axes.budget=[0.6]: profiles.full.axes[0] has label, reducer.r instead of budget"]
    content, problems = apply_sets(OTHER, ["axes.reducer.r=[10]", "axes.label=[x]"], "full")
    assert problems == []
    assert content["profiles"]["full"]["axes"][0] == {"label": ["x"], "reducer.r": [10]}


@pytest.mark.parametrize(
    "content",
    [
        {"axes": 3, "profiles": [1], "base": "x"},
        {"axes": [None, "a", {1: 2}], "profiles": {"nano": "x", "full": {"axes": {"a": 1}}}, "base": [1]},
        {"profiles": {"nano": {"base": 3, "axes": None}}},
    ],
)
def test_a_file_of_another_shape_is_no_accident(content: dict[str, Any]) -> None:
    _, problems = apply_sets(content, ["axes.r=[1]", "base.clips=3", "base.reducer.r=3"])
    assert problems[0].startswith("--set axes.r=[1]: ")
    assert all("\n" not in line for line in problems)
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clips", "not KEY=VALUE"),
        ("axes.odrer=[F]", "no axis has it; did you mean order"),
        ("axes.order=FBF", "an axis needs a list: axes.order=[FBF]"),
        ("base.clisp=3", "did you mean clips"),
        ("base.clips.x=3", "unknown"),
        ("sedes=[1]", "did you mean seeds"),
        ("axes=[1]", "unknown"),
        ("base.clips=[", "cannot be read as YAML"),
    ],
)
def test_what_cannot_be_changed_is_told(text: str, said: str) -> None:
    _, problems = apply_sets(CONTENT, [text])
    assert len(problems) == 1
    assert problems[0].startswith(f"--set {text}: ")
    assert said in problems[0]
