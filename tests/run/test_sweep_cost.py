"""What is left to do, and how long it may take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tokred.run.store import CellStore
from tokred.run.sweep_cost import estimate
from tokred.run.sweep_file import parse_sweep
from tokred.run.sweep_plan import SweepPlan
from tokred.run.sweep_planner import plan_sweep

OPEN_COUNTS = """
from tokred.capabilities import Capabilities
from tokred.reducer import TokenReducer
from tokred.schedule import Schedule


class Open(TokenReducer):
    capabilities = Capabilities(static_counts=False)

    def __init__(self) -> None:
        super().__init__(Schedule(at=(), drop=0))

    def reduce(self, tokens, probe, site):
        return None
"""


@pytest.fixture(scope="module")
def plan() -> SweepPlan:
    content = {"name": "x", "base": {"clips": 6, "reducer": "sta"}, "axes": [{"reducer.r": [4, 8]}]}
    return plan_sweep(parse_sweep(content))


def finish(store: CellStore, id_: str | None, seconds: float) -> None:
    assert id_ is not None
    store.write(id_, {"seconds": seconds}, {"items": np.arange(2)})


def test_nothing_is_known_before_a_cell_is_finished(plan: SweepPlan, tmp_path: Path) -> None:
    cost = estimate(plan, CellStore(tmp_path))
    assert cost.todo == tuple(plan.wanted)
    assert cost.clips == 18
    reports = [planned.report for planned in plan.wanted.values()]
    assert cost.gmac == pytest.approx(6 * sum(report.gmac for report in reports if report))
    assert cost.seconds is None
    assert not cost.at_most


def test_finished_cells_tell_the_rate(plan: SweepPlan, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    finish(store, plan.baselines[0].id, 10.0)
    cost = estimate(plan, store)
    assert cost.kept == (plan.baselines[0].id,)
    assert cost.seconds == pytest.approx(10 * sum(planned.share or 0 for planned in plan.cells))
    everything = estimate(plan, store, fresh=True)
    assert everything.todo == tuple(plan.wanted)
    assert everything.seconds == pytest.approx(10 + (cost.seconds or 0))


def test_failed_cells_are_left_unless_they_are_asked_for(plan: SweepPlan, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    bad = plan.cells[0].id
    assert bad is not None
    store.write_failure(bad, {"reason": "x"})
    assert estimate(plan, store).failed == (bad,)
    assert bad in estimate(plan, store, retry_failed=True).todo
    assert bad in estimate(plan, store, fresh=True).todo
    finish(store, bad, 1.0)
    assert estimate(plan, store).kept == (bad,)


def test_counts_that_depend_on_the_content_are_at_most_those_of_the_whole_model(tmp_path: Path) -> None:
    file = tmp_path / "method.py"
    file.write_text(OPEN_COUNTS)
    content = {"name": "x", "base": {"clips": 6, "reducer": f"{file}:Open"}}
    cost = estimate(plan_sweep(parse_sweep(content)), CellStore(tmp_path))
    assert cost.at_most
    assert cost.gmac == pytest.approx(2 * 6 * 0.986, rel=0.01)
