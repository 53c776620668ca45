from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.data.source import LabelSet
from tokred.measure.accuracy import Accuracy, accuracy, compare
from tokred.measure.statistics import mcnemar, paired_difference, wilson

LOOKS = LabelSet("appearance", ("disc", "ring", "cross"))
MOTION = LabelSet("motion", ("left", "right"), offset=3)


def result(correct: list[bool], name: str = "appearance") -> Accuracy:
    return Accuracy(name, wilson(sum(correct), len(correct)), tuple(range(len(correct))), tuple(correct))


def test_each_label_set_is_judged_on_its_own_logits() -> None:
    logits = torch.tensor([[5.0, 0.0, 0.0, 0.0, 1.0], [0.0, 5.0, 0.0, 9.0, 0.0], [0.0, 0.0, 5.0, 0.0, 2.0]])
    items = [0, 1, 2]
    looks = accuracy(logits, torch.tensor([0, 1, 1]), items, LOOKS)
    motion = accuracy(logits, torch.tensor([1, 0, 1]), items, MOTION)
    assert (looks.correct, motion.correct) == ((True, True, False), (True, True, True))
    assert looks.top1 == wilson(2, 3)
    assert motion.top1.value == 1.0


def test_views_of_an_item_vote_with_their_probabilities() -> None:
    # Two hesitant views for class 0, one certain view for class 1.
    logits = torch.tensor([[0.1, 0.0, -9.0], [0.1, 0.0, -9.0], [0.0, 9.0, -9.0]])
    assert accuracy(logits, torch.tensor([1, 1, 1]), [4, 4, 4], LOOKS).correct == (True,)


def test_items_count_once_however_many_views_they_have() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.0]] * 3 + [[0.0, 1.0, 0.0]])
    found = accuracy(logits, torch.tensor([0, 0, 0, 0]), [0, 0, 0, 1], LOOKS)
    assert (found.top1.value, found.top1.n) == (0.5, 2)


def test_a_comparison_counts_gains_and_losses() -> None:
    reduced = result([True, False, True, False, True])
    unreduced = result([True, True, False, False, False])
    found = compare(reduced, unreduced)
    assert (found.gained, found.lost) == (2, 1)
    assert found.difference == paired_difference(2, 1, 5)
    assert found.p == mcnemar(2, 1)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_the_difference_is_the_difference_of_the_accuracies(pairs: list[tuple[bool, bool]]) -> None:
    reduced, unreduced = result([a for a, _ in pairs]), result([b for _, b in pairs])
    found = compare(reduced, unreduced)
    assert found.difference.value == pytest.approx(reduced.top1.value - unreduced.top1.value)
    assert compare(unreduced, reduced).p == pytest.approx(found.p)


def test_a_comparison_pairs_items_by_name_not_by_place() -> None:
    reduced = Accuracy("a", wilson(1, 2), (8, 3), (True, False))
    unreduced = Accuracy("a", wilson(1, 2), (3, 8), (False, True))
    found = compare(reduced, unreduced)
    assert (found.gained, found.lost) == (0, 0)


def test_other_items_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="the same items; 1 items are only on one side"):
        compare(result([True, True]), result([True]))


def test_other_label_sets_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="'motion' with 'appearance'"):
        compare(result([True], "motion"), result([True]))


@pytest.mark.parametrize(
    ("labels", "items", "message"),
    [
        ([0, 3], [0, 1], "item 1 has label 3 in 'appearance'; allowed: 0 to 2"),
        ([0, -1], [0, 1], "label -1"),
        ([0, 1], [5, 5], "views of item 5 have labels 0 and 1"),
        ([0], [0, 1], r"labels must be \(2,\)"),
    ],
)
def test_impossible_labels_are_refused(labels: list[int], items: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(torch.zeros(2, 5), torch.tensor(labels), items, LOOKS)
