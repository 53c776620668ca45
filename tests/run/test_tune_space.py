"""Every schedule that a search proposes is valid and costs what it should."""

from __future__ import annotations

import random

import pytest

import tokred
from tokred.backbones import adapter_for
from tokred.budget import NEAR, macs_of, solve
from tokred.measure.flops import count, unreduced_plan
from tokred.run.tune_space import Space, Unreachable, plain
from tokred.schedule import ScheduleError


class Drawn:
    """Numbers as an Optuna trial suggests them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def suggest_int(self, name: str, low: int, high: int) -> int:
        return self.random.randint(low, high)

    def suggest_float(self, name: str, low: float, high: float) -> float:
        return self.random.uniform(low, high)


@pytest.fixture(scope="module")
def geometry():
    host = tokred.create_backbone("videomae_vit_nano")
    return adapter_for(host).geometry(host)


@pytest.mark.parametrize("method", ["sta", "tome", "topk", "evit"])
def test_proposals_cost_the_budget_and_differ(method, geometry) -> None:
    space = Space(tokred.build(method), geometry, 0.6)
    full = count(geometry, unreduced_plan(geometry)).macs
    specs = set()
    for seed in range(8):
        try:
            found = space.propose(Drawn(seed))
        except Unreachable:
            continue
        assert abs(macs_of(found.reducer, geometry).macs / full - 0.6) <= NEAR
        assert abs(found.share - 0.6) <= NEAR
        specs.add(found.reducer.spec)
    assert len(specs) >= 4


def test_settings_that_were_given_stay(geometry) -> None:
    space = Space(tokred.build("sta:order=BFB,schedule=constant"), geometry, 0.6)
    found = next(space.propose(Drawn(seed)) for seed in range(9) if _reachable(space, seed))
    assert found.reducer.config["order"] == "BFB"


def _reachable(space: Space, seed: int) -> bool:
    try:
        space.propose(Drawn(seed))
    except Unreachable:
        return False
    return True


def test_places_rise_and_fit_the_depth() -> None:
    rng = random.Random(0)
    for depth in (1, 2, 5, 12):
        for steps in range(1, min(6, depth) + 1):
            places = Space._places([rng.uniform(0.05, 1) for _ in range(steps + 1)], depth)
            assert len(set(places)) == steps
            assert list(places) == sorted(places)
            assert places[0] >= 0
            assert places[-1] < depth


def test_a_shape_that_cannot_cost_so_little_is_said(geometry) -> None:
    with pytest.raises(Unreachable, match="cannot cost 5%"):
        Space(tokred.build("sta"), geometry, 0.05)._at_budget((8,), [1.0])


@pytest.mark.parametrize("method", ["none", "fewer_frames"])
def test_methods_without_a_schedule_are_refused(method, geometry) -> None:
    with pytest.raises(ScheduleError, match="no schedule to search"):
        Space(tokred.build(method), geometry, 0.5)


def test_the_methods_own_schedule_is_the_one_that_budgets_solve_for(geometry) -> None:
    assert plain(tokred.build("sta"), geometry, 0.5, solve).reducer.spec == "sta:r=22"
