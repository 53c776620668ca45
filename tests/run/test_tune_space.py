"""Every schedule that a search proposes is valid and costs what it should."""

from __future__ import annotations

import random

import pytest

import tokred
from tokred.backbones import adapter_for
from tokred.budget import NEAR, macs_of, solve
from tokred.dry import dry_run
from tokred.measure.flops import count, unreduced_plan
from tokred.run.tune_space import SLACK, Space, Unreachable, plain
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


@pytest.mark.parametrize("share", [0.6, 0.35])
@pytest.mark.parametrize("method", ["sta", "topk", "evit"])
def test_proposals_cost_no_more_than_the_budget_and_differ(method, share, geometry) -> None:
    space = Space(tokred.build(method), geometry, share)
    full = count(geometry, unreduced_plan(geometry)).macs
    specs = set()
    for seed in range(8):
        found = space.propose(Drawn(seed))
        assert found.share == macs_of(found.reducer, geometry).macs / full
        assert share - NEAR <= found.share <= share + SLACK
        specs.add(found.reducer.spec)
    assert len(specs) == 8


def test_methods_that_merge_pairs_come_near_too(geometry) -> None:
    space = Space(tokred.build("tome"), geometry, 0.6)
    assert all(0.58 <= space.propose(Drawn(seed)).share <= 0.601 for seed in range(6))


@pytest.mark.parametrize(
    ("method", "share", "places"),
    [("sta", 0.35, (0, 3, 6)), ("topk", 0.5, (0, 3, 6)), ("evit", 0.6, (2, 4, 6)), ("vid_tldr", 0.6, (0, 1, 2, 3))],
)
def test_a_search_can_start_from_the_methods_own_schedule(method, share, places, geometry) -> None:
    own = plain(tokred.build(method), geometry, share, solve)
    space = Space(tokred.build(method), geometry, own.share)
    numbers = space.numbers_of(own.reducer)
    assert numbers is not None

    class Fixed:
        def suggest_int(self, name: str, low: int, high: int) -> int:
            assert low <= numbers[name] <= high
            return int(numbers[name])

        def suggest_float(self, name: str, low: float, high: float) -> float:
            assert low <= numbers[name] <= high
            return numbers[name]

    found = space.propose(Fixed())
    assert found.reducer.config["at"] == places
    assert found.share == pytest.approx(own.share, abs=0.012)
    amounts = [step.n_out for step in dry_run(found.reducer, geometry).steps]
    wanted = [step.n_out for step in dry_run(own.reducer, geometry).steps]
    assert amounts == pytest.approx(wanted, abs=16), "two tokens a frame"


def test_a_schedule_with_more_steps_than_a_search_draws_is_not_its_start(geometry) -> None:
    own = plain(tokred.build("tome"), geometry, 0.5, solve)
    assert Space(tokred.build("tome"), geometry, 0.5).numbers_of(own.reducer) is None


def test_late_steps_are_moved_forward_until_they_save_enough(geometry) -> None:
    class Late(Drawn):
        def suggest_int(self, name: str, low: int, high: int) -> int:
            return 2

        def suggest_float(self, name: str, low: float, high: float) -> float:
            return high if name in ("gap0", "weight0", "weight1") else low

    relaxed = Space(tokred.build("sta"), geometry, 0.9).propose(Late(0)).reducer.config["at"]
    pressed = Space(tokred.build("sta"), geometry, 0.4).propose(Late(0)).reducer.config["at"]
    assert relaxed == (7, 8)
    assert pressed[0] < 4


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
