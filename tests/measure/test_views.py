from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.data.source import LabelSet
from tokred.measure.views import item_scores, logit_slice, mean_over_views, whole

MOTION = LabelSet("motion", ("left", "right"), offset=3)


def test_probabilities_are_softmaxed_per_view_and_then_averaged() -> None:
    logits = torch.tensor([[0.0, 2.0], [5.0, 0.0], [1.0, 1.0]])
    scores = item_scores(logits, [7, 4, 7], whole(2))
    assert scores.items == (7, 4)
    p = logits.double().softmax(dim=1)
    expected = torch.stack([(p[0] + p[2]) / 2, p[1]])
    torch.testing.assert_close(scores.log_probabilities.exp(), expected)


def test_only_the_logits_of_the_label_set_compete() -> None:
    logits = torch.tensor([[9.0, 9.0, 9.0, 0.0, 1.0, 9.0]])
    torch.testing.assert_close(logit_slice(logits, MOTION), torch.tensor([[0.0, 1.0]]))
    assert item_scores(logits, [0], MOTION).top1.tolist() == [1]


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 1000))
def test_probabilities_sum_to_one(views: int, classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 50 * torch.randn(views, classes, generator=generator)
    scores = item_scores(logits, [i % 2 for i in range(views)], whole(classes))
    torch.testing.assert_close(scores.log_probabilities.exp().sum(dim=1), torch.ones(min(views, 2)).double())


@given(st.permutations(range(6)))
def test_the_order_of_the_views_does_not_matter(order: list[int]) -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    items = [0, 0, 1, 1, 2, 2]
    plain = item_scores(logits, items, whole(4))
    mixed = item_scores(logits[list(order)], [items[i] for i in order], whole(4))
    back = [mixed.items.index(item) for item in plain.items]
    torch.testing.assert_close(mixed.log_probabilities[back], plain.log_probabilities)


def test_the_first_of_equal_classes_wins() -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 0.0, 2.0]])
    assert item_scores(logits, [0, 1], whole(4)).top1.tolist() == [1, 0]


def test_probabilities_too_small_for_a_float_stay_finite() -> None:
    scores = item_scores(torch.tensor([[0.0, 2000.0], [0.0, 2000.0]]), [0, 0], whole(2))
    assert scores.log_probabilities[0].tolist() == pytest.approx([-2000.0, 0.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_are_computed_in_double_precision(dtype: torch.dtype) -> None:
    assert item_scores(torch.zeros(1, 3, dtype=dtype), [0], whole(3)).log_probabilities.dtype == torch.float64


def test_features_are_averaged_over_the_views_of_an_item() -> None:
    values, order = mean_over_views(torch.tensor([[1.0, 0.0], [4.0, 4.0], [3.0, 2.0]]), [5, 2, 5])
    assert order == (5, 2)
    assert values.tolist() == [[2.0, 1.0], [4.0, 4.0]]


@pytest.mark.parametrize(
    ("logits", "items", "label_set", "message"),
    [
        (torch.zeros(2, 4), [0, 1], MOTION, "covers logits 3 to 4, the model has 4"),
        (torch.zeros(2, 4), [0, 1], LabelSet("x", ("a",), -1), "'x' covers logits -1 to -1"),
        (torch.zeros(2, 4), [0, 1], LabelSet("x", ()), "'x' covers"),
        (torch.zeros(4), [0], whole(4), r"logits must be \(V, classes\), got shape \(4,\)"),
        (torch.zeros(2, 4), [0], whole(4), "1 items were given for 2 rows"),
        (torch.zeros(0, 4), [], whole(4), "no views were given"),
        (torch.tensor([[0.0], [float("nan")]]), [3, 8], whole(1), "1 of 2 views are not finite; first: item 8"),
    ],
)
def test_impossible_input_is_refused_with_its_value(
    logits: torch.Tensor, items: list[int], label_set: LabelSet, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        item_scores(logits, items, label_set)
