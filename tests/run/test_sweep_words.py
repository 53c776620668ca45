"""Names of points: short, and never two meanings for one name."""

from __future__ import annotations

from tokred.run.sweep_words import words


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
