from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tokred.plan import Plan, StepCount


def test_a_plan_is_a_value() -> None:
    step = StepCount(1, "after_block", 64, 48)
    plan = Plan(64, (64, 64, 48), (64, 64, 48), 48, (step,))
    assert plan == Plan(64, (64, 64, 48), (64, 64, 48), 48, (StepCount(1, "after_block", 64, 48, 0, 0),), ())
    with pytest.raises(FrozenInstanceError, match="cannot assign"):
        plan.final = 3  # type: ignore[misc]
