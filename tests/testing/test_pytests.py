from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.outcomes import Skipped

from tokred.methods import FewerFrames, TopK
from tokred.registry import build
from tokred.testing import CHECKS, CheckFailed, Profile, default_backbones, parametrize_with_checks
from tokred.testing.pytests import Bound, Drawn

WRONG = Path(__file__).parent / "wrong.py"
VIDEO, IMAGE, *_ = default_backbones()
RESTORE = next(check for check in CHECKS if check.name == "check_restore")
FEW = Profile("few", 8)


def test_there_is_a_test_for_each_backbone_and_check_and_one_for_drawn_steps() -> None:
    ids = [row.id for row in parametrize_with_checks([TopK], [VIDEO, IMAGE]).args[1]]
    assert ids[-1] == "topk-drawn"
    assert "topk-image-check_restore" in ids
    slow = [check.name for check in CHECKS if check.once]
    assert all(sum(name.endswith(f"-{check}") for name in ids) == 1 for check in slow)


def test_a_bound_check_passes_fails_or_skips_with_the_reason() -> None:
    assert Bound(RESTORE, TopK(keep=0.5), VIDEO)().status == "passed"
    with pytest.raises(CheckFailed, match="back in their places"):
        Bound(RESTORE, build(f"{WRONG}:RestoresBackwards"), VIDEO)()
    with pytest.raises(Skipped, match="image refuses fewer_frames"):
        Bound(RESTORE, FewerFrames, IMAGE)()


def test_drawn_checks_pass_fail_or_skip_with_the_reason() -> None:
    assert Drawn([RESTORE], TopK, FEW)().detail == "8 drawn steps"
    with pytest.raises(CheckFailed, match=r"(?s)back in their places.*check_step\("):
        Drawn([RESTORE], build(f"{WRONG}:RestoresBackwards"), FEW)()
    with pytest.raises(Skipped, match="it takes no step on tokens"):
        Drawn([RESTORE], FewerFrames, FEW)()
