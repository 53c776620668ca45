from __future__ import annotations

from collections.abc import Callable

import pytest
from testing.zoo import Specimen, about, spec

from tokred.methods import STTS
from tokred.registry import build
from tokred.testing import default_backbones
from tokred.testing.case import Case
from tokred.testing.failures import NotApplicable
from tokred.testing.gradients import check_gradients
from tokred.testing.shapes import VideoShape

VIDEO, _, WINDOWS = default_backbones()


@pytest.mark.parametrize("wrong", about("check_gradients"), ids=lambda wrong: wrong.reducer)
def test_gradients_that_do_not_arrive_are_caught(caught: Callable[..., str], wrong: Specimen) -> None:
    assert wrong.says in caught(wrong.reducer, wrong.check, wrong.backbone)


def test_queries_of_a_single_token_need_no_gradient() -> None:
    """Two patches, then one: its attention is itself, whatever the query."""
    tiny = VideoShape((1, 2, 2), dim=8, heads=1, depth=4).backbone
    check_gradients(Case(build(f"{spec('Plain')}:keep=0.5,at=all"), tiny))


@pytest.mark.parametrize("reducer", ["Learns", "SparePart"])
def test_a_learned_reducer_passes_and_weights_that_no_step_reads_are_not_missed(reducer: str) -> None:
    check_gradients(Case(build(spec(reducer)), VIDEO))


def test_scorers_of_a_stage_that_does_not_act_are_not_missed() -> None:
    check_gradients(Case(STTS(time=0.5, space=1.0), VIDEO))


def test_a_learned_reducer_that_takes_no_step_has_nothing_to_learn_from() -> None:
    tiny = VideoShape((1, 2, 2), dim=8, heads=1, depth=4).backbone
    check_gradients(Case(STTS(keep=0.7), tiny))


def test_masked_training_that_a_host_refuses_is_skipped_with_its_reason() -> None:
    with pytest.raises(NotApplicable, match=r"windows refuses .* in training: masked training needs attention of all"):
        check_gradients(Case(build(spec("Learns")), WINDOWS))
