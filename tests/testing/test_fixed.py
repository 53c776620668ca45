from __future__ import annotations

import tokred
from tokred.registry import build
from tokred.testing.check import Check
from tokred.testing.fixed import LARGE, SINGLE, look_at_fixed
from tokred.testing.search import trial_of
from tokred.testing.trial import Trial


def seen_by(reducer: tokred.TokenReducer, hosts: tuple[bool, ...] = (False, True)) -> list[Trial]:
    found: list[Trial] = []
    look = Check("check_nothing", "nothing", lambda _: None, lambda _: None, once=False, drawn=found.append)
    assert list(look_at_fixed(lambda example: trial_of(reducer, example), [look], hosts)) == []
    return found


def test_large_ones_have_what_small_hosts_do_not() -> None:
    for example in LARGE:
        assert example.batch > 8
        assert example.grid[0] > 4
        assert example.patches > 256
    (single,) = SINGLE
    assert (single.patches, single.batch) == (1, 2)


def test_of_each_group_the_first_that_is_taken_is_looked_at() -> None:
    assert [trial.example for trial in seen_by(build("tome"))] == [LARGE[0]], "nothing to merge in a single token"
    assert [trial.example for trial in seen_by(build("topk"))] == [LARGE[0], SINGLE[0]]
    assert [trial.example for trial in seen_by(build("sta_window"), (True,))] == [LARGE[2]]
    assert seen_by(build("fewer_frames"), ()) == []


def test_little_is_dropped_and_late() -> None:
    (large, _) = seen_by(build("topk:at=all"))
    (step,) = large.plain.steps
    assert (step.site.block, step.before.patch_count, step.after.patch_count) == (7, 336, 326)
