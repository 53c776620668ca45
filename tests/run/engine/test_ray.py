"""A real Ray cluster of two worker nodes on this machine: the same bits, every cell once, whichever node dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tokred.run.engine import EngineError, InParts, make_engine
from tokred.run.engine.ray import RayEngine
from tokred.run.store import CellStore
from tokred.run.work import Done, Failed

# A cluster takes its time to start: one process runs all of these tests on one of them.
pytestmark = [pytest.mark.xdist_group("engine_ray"), pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # Ray would write a token to the home folder
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # this machine's other work is not these tests' business
        for _ in range(4):  # Ray gives a node thirty seconds to start, which a busy machine may not have
            try:
                cluster = start()
                break
            except Exception as error:
                if "timed out" not in str(error):
                    raise
        else:
            cluster = start()
        yield cluster
        cluster.shutdown()


def start():
    """A head that computes nothing, and two nodes for one task each."""
    from ray.cluster_utils import Cluster

    # A dead node is noticed after some seconds, so that the tests need not wait for half a minute.
    quick = {"health_check_period_ms": 1000, "health_check_timeout_ms": 10_000, "health_check_failure_threshold": 3}
    room = {"object_store_memory": 80 << 20}
    head = {"num_cpus": 0, "include_dashboard": False, "no_monitor": True, "_system_config": quick, **room}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **room)
    except Exception:
        cluster.shutdown()
        raise
    return cluster


@pytest.fixture(scope="module")
def engine(cluster):
    with RayEngine(address=cluster.address) as engine:
        yield engine


def test_a_grid_in_parts_is_the_same_bit_for_bit(engine, grid, expected, once, tmp_path) -> None:
    seen: list[int] = []
    assert engine.workers == 2
    once(InParts(engine, 2, CellStore(tmp_path)).run(grid, seen.append), expected)
    assert sum(seen) == 4 * 8 + 2 * 4


def test_whatever_a_task_does_wrong_is_its_outcome(engine, task_of, deadly) -> None:
    leaves = task_of(deadly("Leaves"))
    (found,) = engine.run([leaves])
    assert isinstance(found, Failed)
    assert found.reason == "SystemExit: no more"


def test_a_task_that_needs_what_no_node_has_is_refused(engine) -> None:
    with pytest.raises(EngineError, match="no node of the Ray cluster has the 1 CPU and 1 GPU that a task needs"):
        make_engine("ray", device="cuda", num_gpus=1.0)


def test_a_node_killed_in_the_middle_of_a_grid_costs_no_cell(engine, cluster, grid, expected, once, tmp_path) -> None:
    store = CellStore(tmp_path)
    written: list[str] = []

    def outcomes():
        for number, outcome in enumerate(engine.run(grid)):
            assert isinstance(outcome, Done), outcome
            written.append(outcome.task.id)
            store.write(outcome.task.id, outcome.record, outcome.arrays)
            if number == 0:
                cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)
            yield outcome

    once(outcomes(), expected)
    assert sorted(written) == sorted(expected)
    assert sorted(path.stem for path in store.folder.glob("*.json")) == sorted(expected)


def test_without_an_address_a_cluster_of_its_own_starts_and_ends(engine, cluster, monkeypatch, all_gone) -> None:
    import ray

    engine.close()
    cluster.shutdown()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    before = processes()
    with make_engine("ray", workers=1) as own:
        assert own.workers == 1
        assert ray.is_initialized()
        started = processes() - before
        assert started
    assert not ray.is_initialized()
    assert all_gone(started)


def processes() -> set[int]:
    """Numbers of the processes of Ray clusters on this machine."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if b"raylet" in command or b"gcs_server" in command or b"ray::" in command:
            found.add(int(path.parent.name))
    return found
