"""Names of points: short, and never two meanings for one name."""

from __future__ import annotations

from tokred.run.sweep_words import said_once, words


def test_seeds_are_named_only_where_there_are_several() -> None:
    point = {"reducer": "sta:r=8", "budget": 0.5, "seed": 1}
    assert words(point, [["reducer"], ["budget"]], [0]) == "sta:r=8, budget=0.5"
    assert words(point, [["reducer"], ["budget"]], [0, 1]) == "sta:r=8, budget=0.5, seed=1"


def test_a_label_speaks_for_the_keys_of_its_axis_alone() -> None:
    point = {"label": "STA", "reducer": "sta", "reducer.order": "FBF"}
    assert words(point, [["label", "reducer"], ["reducer.order"]]) == "STA, order=FBF"


def test_lists_nothing_and_one_point() -> None:
    assert words({"reducer.at": [3, 6], "budget": None}, []) == "at=[3,6], budget=none"
    assert words({"seed": 0}, [], [0]) == "all"


def test_the_unreduced_model_is_named_without_a_budget() -> None:
    axes = [["reducer"], ["budget"]]
    assert words({"reducer": "none", "budget": None, "seed": 1}, axes, [0, 1]) == "none, seed=1"
    assert words({"reducer": "none", "budget": 0.5}, axes) == "none, budget=0.5"
    assert words({"reducer": "sta", "budget": None}, axes) == "sta, budget=none"


def test_notes_are_said_once_though_planning_joins_what_running_gives_singly() -> None:
    seven, eight = "block 7: r = 62 clamped to 39, half of the tokens", "block 8: r = 62 clamped to 19"
    assert said_once([f"{seven}; {eight}", "a note", seven, eight, "a note"]) == [f"{seven}; {eight}", "a note"]
    assert said_once([seven, eight]) == [seven, eight]
    assert said_once(["half; more", "block 7: half"]) == ["half; more", "block 7: half"]
