"""What the methods of semantic tokens have in common; their behaviour on hosts is in tests/methods/test_stvit.py."""

from __future__ import annotations

import pytest

from tokred.methods import STViT, STViTR
from tokred.schedule import ScheduleError
from tokred.tokens import Grid


@pytest.mark.parametrize("method", [STViT, STViTR])
def test_both_declare_why_strength_zero_is_not_the_host(method: type[STViT | STViTR]) -> None:
    reason = method(2).capabilities.identity_at_zero
    assert isinstance(reason, str)
    assert "replaced" in reason


@pytest.mark.parametrize(("grid", "side", "allowed"), [((2, 4, 6), 5, "1..4"), ((1, 4, 4), 4, "1..3")])
def test_more_tokens_than_a_frame_has_are_refused(grid: tuple[int, int, int], side: int, allowed: str) -> None:
    frame = Grid(*grid)
    with pytest.raises(ScheduleError, match=f"side = {side} .* allowed is {allowed}"):
        STViT(side).whole(frame.patches, frame.t, frame, 1)
    STViT(int(allowed[-1])).whole(frame.patches, frame.t, frame, 1)


def test_frames_that_are_not_whole_are_refused() -> None:
    frame = Grid(2, 4, 4)
    for count, groups in ((31, None), (32, 4), (16, 1)):
        with pytest.raises(ScheduleError, match=f"{count} tokens are in {groups or 'no'} groups"):
            STViT(2).whole(count, groups, frame, 1)
    STViT(2).whole(32, None, frame, 1)
