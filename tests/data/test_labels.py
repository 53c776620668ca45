"""Accuracy only for labels that the model tells."""

from __future__ import annotations

from tokred.data.labels import answerable
from tokred.data.source import LabelSet

SHAPES, WAYS = ("disc", "ring"), ("left", "right", "up")
TASKS = (LabelSet("appearance", SHAPES), LabelSet("motion", WAYS, offset=2))


def test_labels_find_their_place_in_the_logits() -> None:
    kept, notes = answerable((LabelSet("way", WAYS),), TASKS, 5)
    assert kept == (LabelSet("way", WAYS, offset=2),)
    assert notes == []


def test_labels_of_another_task_are_left_out_with_a_note() -> None:
    data = (LabelSet("class", ("cat", "dog", "cow", "horse")), LabelSet("motion", WAYS, offset=4))
    kept, notes = answerable(data, TASKS, 5)
    assert kept == (LabelSet("motion", WAYS, offset=2),)
    assert notes == [
        "no accuracy for class (cat, dog, cow, and 1 more): the model was trained for appearance (disc, ring), "
        "motion (left, right, up)"
    ]


def test_class_numbers_without_names_are_taken_to_be_the_models() -> None:
    data = (LabelSet("label", ("0", "1", "2")),)
    assert answerable(data, TASKS, 5) == (data, [])


def test_without_knowledge_of_the_model_only_the_length_is_checked() -> None:
    data = (LabelSet("class", ("cat", "dog")), LabelSet("motion", WAYS, offset=2))
    assert answerable(data, (), 5) == (data, [])
    kept, notes = answerable(data, (), 4)
    assert kept == data[:1]
    assert notes == ["no accuracy for motion: it ends at class 5, the model has 4 logits"]
