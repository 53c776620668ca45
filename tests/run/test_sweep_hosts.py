"""Hosts and what they make of reducers, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokred.run.clips import ClipSettings
from tokred.run.sweep_hosts import Hosts, seeded
from tokred.run.sweep_spec import BaseSpec

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


def fields(**changes: Any) -> dict[str, Any]:
    return {**BaseSpec().model_dump(), **changes}


def test_a_seed_goes_to_every_part_that_has_one_and_was_not_given_another() -> None:
    assert seeded("random_drop:keep=0.5", 3) == "random_drop:keep=0.5,seed=3"
    assert seeded("random_drop:seed=7", 3) == "random_drop:seed=7"
    assert seeded("tome:r=4+random_drop:keep=0.5", 3) == "tome:r=4+random_drop:keep=0.5,seed=3"
    assert seeded("tome:r=4", 3) == "tome:r=4"


def test_a_reducer_is_checked_once_and_its_refusal_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokred.run import sweep_hosts

    calls = []

    def counting(*arguments: Any) -> Any:
        calls.append(arguments)
        raise ValueError("refused")

    monkeypatch.setattr(sweep_hosts, "_check", counting)
    hosts = Hosts()
    for _ in range(2):
        with pytest.raises(ValueError, match="refused"):
            hosts.check(fields(), "sta:r=4", 0)
    assert len(calls) == 1
    with pytest.raises(ValueError, match="refused"):
        hosts.check(fields(), "sta:r=5", 0)
    assert len(calls) == 2


def test_a_group_says_what_its_cells_are_paired_on() -> None:
    group = Hosts().group(fields(), ClipSettings(clips=3, seed=5))
    assert (group.items, group.unit, group.clips.seed) == (3, "clip", 5)
    assert {label_set.name for label_set in group.label_sets} == {"appearance", "motion"}
    assert group.gmac == pytest.approx(0.986, abs=0.01)


def test_counts_that_depend_on_the_content_have_no_cost_at_full_size(tmp_path: Path) -> None:
    file = tmp_path / "method.py"
    file.write_text(OPEN_COUNTS)
    cost = Hosts().full(fields(backbone="videomae_vit_small"), f"{file}:Open")
    assert cost.gmac is None
    assert cost.reason == "token counts depend on the content"
