from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokred.data.source import LabelSet
from tokred.measure.agreement import agreement, feature_distance, kl_divergence
from tokred.measure.statistics import wilson
from tokred.measure.views import item_scores, whole

LOOKS = LabelSet("appearance", ("disc", "ring", "cross"))
MOTION = LabelSet("motion", ("left", "right"), offset=3)


def random_logits(seed: int, rows: int = 6, classes: int = 5, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


def test_a_model_agrees_with_itself_completely() -> None:
    logits = random_logits(0)
    found = agreement(logits, logits, range(6))["all"]
    assert (found.same_top1.value, found.kl.value, found.kl.high) == (1.0, 0.0, 0.0)


def test_agreement_is_the_share_of_items_with_the_same_top1() -> None:
    ours = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    theirs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    assert agreement(ours, theirs, range(4))["all"].same_top1 == wilson(3, 4)


def test_the_divergence_is_from_the_unreduced_to_the_reduced_model_in_nats() -> None:
    unreduced = torch.tensor([[0.9, 0.1]]).log()
    reduced = torch.tensor([[0.5, 0.5]]).log()
    expected = 0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5)
    assert agreement(reduced, unreduced, [0])["all"].kl.value == pytest.approx(expected, rel=1e-6)
    backwards = 0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1)
    assert agreement(unreduced, reduced, [0])["all"].kl.value == pytest.approx(backwards, rel=1e-6)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.0, 500.0))
def test_the_divergence_is_never_negative_and_always_finite(a: int, b: int, scale: float) -> None:
    p, q = (item_scores(random_logits(s, scale=scale), range(6), whole(5)) for s in (a, b))
    divergence = kl_divergence(p, q)
    assert bool((divergence >= 0).all())
    assert bool(divergence.isfinite().all())


@given(st.integers(0, 10**6))
def test_a_constant_added_to_all_logits_of_a_view_changes_nothing(seed: int) -> None:
    ours, theirs = random_logits(seed), random_logits(seed + 1)
    plain = agreement(ours, theirs, range(6))["all"]
    shifted = agreement(ours + 7.0, theirs - 3.0, range(6))["all"]
    assert shifted.same_top1 == plain.same_top1
    assert shifted.kl.value == pytest.approx(plain.kl.value, rel=1e-4, abs=1e-6)


def test_each_label_set_has_its_own_softmax_and_the_joint_entry_needs_both() -> None:
    ours = torch.tensor([[2.0, 0.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0, 1.0]])
    theirs = torch.tensor([[2.0, 0.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 0.0, 1.0]])
    found = agreement(ours, theirs, [0, 1], (LOOKS, MOTION))
    assert list(found) == ["appearance", "motion", "joint"]
    assert [found[name].same_top1.value for name in found] == [1.0, 0.5, 0.5]
    assert found["appearance"].kl.value == 0.0
    assert found["joint"].kl.value == pytest.approx(found["motion"].kl.value)


def test_the_joint_divergence_is_the_sum_over_label_sets() -> None:
    found = agreement(random_logits(1), random_logits(2), range(6), (LOOKS, MOTION))
    assert found["joint"].kl.value == pytest.approx(found["appearance"].kl.value + found["motion"].kl.value)


def test_views_are_averaged_before_models_are_compared() -> None:
    ours = torch.tensor([[0.1, 0.0], [0.0, 9.0]])
    theirs = torch.tensor([[0.0, 9.0], [0.1, 0.0]])
    assert agreement(ours, theirs, [0, 0])["all"].same_top1.value == 1.0
    assert agreement(ours, theirs, [0, 1])["all"].same_top1.value == 0.0


def test_feature_distance_is_relative_to_the_length_of_the_unreduced_features() -> None:
    unreduced = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    reduced = torch.tensor([[3.0, 3.0], [0.0, 2.0]])
    found = feature_distance(reduced, unreduced, [0, 1])
    assert found.value == pytest.approx((1 / 5 + 0) / 2)
    assert found.low <= found.value <= found.high


@given(st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_feature_distance_does_not_depend_on_the_scale_of_both(seed: int, scale: float) -> None:
    ours, theirs = random_logits(seed), random_logits(seed + 1)
    plain, scaled = (feature_distance(ours * s, theirs * s, range(6)).value for s in (1.0, scale))
    assert scaled == pytest.approx(plain, rel=1e-4)


def test_features_that_are_all_zero_have_no_relative_distance() -> None:
    with pytest.raises(ValueError, match="item 9 are all zero"):
        feature_distance(torch.ones(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), [4, 9])


@pytest.mark.parametrize("function", [agreement, feature_distance])
def test_other_shapes_are_refused(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 4\)"):
        function(torch.zeros(2, 3), torch.zeros(2, 4), [0, 1])


@pytest.mark.parametrize("names", [("a", "a"), ("a", "joint")])
def test_label_sets_need_names_of_their_own(names: tuple[str, str]) -> None:
    sets = [LabelSet(name, ("x", "y")) for name in names]
    with pytest.raises(ValueError, match="different names"):
        agreement(torch.zeros(1, 2), torch.zeros(1, 2), [0], sets)


def test_other_items_have_no_divergence() -> None:
    p, q = (item_scores(torch.zeros(1, 2), [item], whole(2)) for item in (0, 1))
    with pytest.raises(ValueError, match="the same items"):
        kl_divergence(p, q)
