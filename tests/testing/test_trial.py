from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tokred.methods import STA, Eventful, FewerFrames, STViTR, ToMe, TopK
from tokred.registry import build
from tokred.testing import Refused, StepExample
from tokred.testing.failures import Broken
from tokred.testing.stand_in import View
from tokred.testing.trial import Trial

WRONG = Path(__file__).parent / "wrong.py"


def test_one_step_or_all_blocks_are_run() -> None:
    one = Trial(ToMe(r=2), StepExample(grid=(1, 3, 4), step=2))
    assert [step.site.block for step in one.plain.steps] == [2]
    assert one.plain.tokens.count == 10
    every = Trial(ToMe(r=2), StepExample(grid=(1, 3, 4), step=None))
    assert [step.after.count for step in every.plain.steps] == [10, 8, 6, 4]
    staged = Trial(STA(r=1), StepExample(grid=(2, 6, 6), windows=True))
    assert [step.before.grid for step in staged.plain.steps] == [(2, 3, 3), (2, 2, 2)]


def test_what_a_step_needs_of_earlier_ones_of_its_own_is_run_before_it() -> None:
    late = Trial(STViTR(side=1), StepExample(grid=(1, 2, 2), step=1))
    assert [step.after.patch_count for step in late.plain.steps] == [1, 4]


def test_refusals_carry_the_reason() -> None:
    with pytest.raises(Refused, match="has no step here"):
        Trial(FewerFrames(), StepExample())
    with pytest.raises(Refused, match="impossible with 2 tokens"):
        Trial(build("evit:tokens=30,at=[1]"), StepExample()).run()
    with pytest.raises(Refused, match="needs equal temporal groups"):
        Trial(STA(r=1), StepExample(grid=(2, 2, 2), frames=False)).run()


def test_a_refusal_that_the_promise_did_not_make_is_a_broken_clause() -> None:
    class Late(TopK):
        def promise(self, step, count, groups, geometry):  # type: ignore[no-untyped-def]
            return super().promise(step, max(count, 100), groups, geometry)

    late = Late(keep=0.5)
    late.schedule = type(late.schedule)(at=(0,), tokens=50)
    with pytest.raises(Broken, match="to be refused by promise, before any compute"):
        Trial(late, StepExample()).run()


def test_a_method_that_remembers_sees_another_frame_first() -> None:
    trial = Trial(Eventful(r=2), StepExample(grid=(1, 2, 3), dim=8))
    all_computed = Trial(Eventful(r=6), trial.example)
    assert not torch.equal(trial.plain.tokens.x, all_computed.plain.tokens.x), "only 2 of 6 tokens are new"
    assert torch.equal(trial.run().tokens.x, trial.plain.tokens.x)
    assert not torch.equal(trial.run(View(frame=2), fresh=False).tokens.x, trial.plain.tokens.x)


def test_writing_on_what_was_given_is_seen() -> None:
    trial = Trial(build(f"{WRONG}:WritesInPlace"), StepExample(grid=(1, 2, 2)))
    assert [step.touched for step in trial.plain.steps] == ["the features, the block's input"]
