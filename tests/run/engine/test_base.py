"""Engines by name: what is refused, and in which words."""

from __future__ import annotations

import re
import sys

import pytest
import torch

from tokred.run.engine import EngineError, make_engine


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "locl"}, "unknown engine 'locl': did you mean local"),
        ({"name": "slurm"}, "allowed are local, ray"),
        ({"workers": 0}, "workers = 0 must be at least 1"),
        ({"address": "head:6379"}, "address = head:6379 belongs to the engine ray"),
        ({"num_gpus": 1.0}, "num_gpus = 1.0 belongs to the engine ray"),
        ({"name": "ray", "num_gpus": 0.5}, "num_gpus = 0.5 with device = cpu"),
        ({"name": "ray", "device": "cuda", "num_gpus": -1.0}, "num_gpus = -1 with device = cuda"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(settings, words) -> None:
    with pytest.raises(EngineError, match=re.escape(words)) as error:
        make_engine(**settings)
    assert "\n" not in str(error.value)


def test_without_ray_one_line_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"^the engine ray needs Ray: pip install 'tokred\[ray\]'"):
        make_engine("ray")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineError, match="device = cuda: there is no GPU"):
        make_engine(device="cuda")


def test_no_process_starts_before_there_is_a_task() -> None:
    with make_engine(workers=3) as engine:
        assert engine.workers == 3
        assert list(engine.run([])) == []
        assert engine.pids == []


def test_unless_told_otherwise_a_worker_per_thread_but_not_many(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert make_engine().workers == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert make_engine().workers == 4
