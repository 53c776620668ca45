from __future__ import annotations

import pytest
import torch

from tokred.methods import STA, EViT, FewerFrames, RandomDrop, ToMe, TopK
from tokred.testing import default_backbones
from tokred.testing.case import Case, construct, difference
from tokred.testing.failures import Broken, NotApplicable

VIDEO, IMAGE, *_ = default_backbones()


def test_a_class_whose_defaults_do_nothing_is_checked_at_a_middle_strength() -> None:
    case = Case(RandomDrop, VIDEO)
    assert case.zero is not None
    assert case.zero.spec == "random_drop"
    assert 0 < case.reducer.config["keep"] < 1
    assert Case(STA, VIDEO).reducer.config["r"] >= 1


def test_an_instance_is_checked_as_it_is() -> None:
    assert Case(ToMe(r=3, at=(1,)), VIDEO).reducer.spec == "tome:r=3,at=[1]"
    assert Case(EViT(tokens=20, at=(0,)), VIDEO).zero is None  # tokens have no weakest setting


def test_a_backbone_that_does_not_fit_is_a_reason_to_skip() -> None:
    with pytest.raises(NotApplicable, match="image refuses fewer_frames: fewer_frames needs a video"):
        Case(FewerFrames, IMAGE)
    with pytest.raises(NotApplicable, match=r"video refuses .* needs a class token"):
        Case(EViT(keep=0.5, score="class"), VIDEO)


def test_construct_asks_for_defaults() -> None:
    class Strict(TopK):
        def __init__(self, keep: float) -> None:
            super().__init__(keep)

    with pytest.raises(Broken, match=r"Strict\(\) to work"):
        construct(Strict)
    assert construct(Strict(0.5)).config == {"keep": 0.5}
    with pytest.raises(TypeError, match="takes a TokenReducer or its class, got 3"):
        construct(3)  # type: ignore[arg-type]


def test_difference_is_relative_above_one_and_infinite_for_what_cannot_be_compared() -> None:
    assert difference(torch.tensor([1.0]), torch.tensor([1.5])) == pytest.approx(1 / 3)
    assert difference(torch.tensor([0.1]), torch.tensor([0.2])) == pytest.approx(0.1)
    assert difference(torch.zeros(2), torch.zeros(3)) == float("inf")
    assert difference(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    inf = torch.tensor([float("inf")])
    assert difference(inf, inf) == 0.0
    assert difference(inf, -inf) == float("inf")


def test_watching_shows_also_steps_that_do_nothing() -> None:
    case = Case(ToMe(r=(4, 0, 2)), VIDEO)
    assert [(s.site.block, s.before.count, s.after.count) for s in case.watch()] == [(0, 96, 92), (2, 92, 90)]
    idle = case.attach(TopK(keep=0.999, at=(1,)))
    assert [(s.reduction, s.touched) for s in case.watch(idle)] == [(None, "")]
