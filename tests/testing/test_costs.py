from __future__ import annotations

from collections.abc import Callable

import pytest

import tokred
from tokred.dry import dry_run
from tokred.testing import Case, default_backbones
from tokred.testing.failures import NotApplicable


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CheapOnPaper", "got        0 MAC for the step at block 1, which runs 221,184"),
        ("CheapWhenPlanned", "MAC in a forward, +221,184"),
    ],
)
def test_multiply_adds_that_are_not_those_that_run_are_caught(caught: Callable[..., str], name: str, says: str) -> None:
    assert says in caught(name, "check_counted_flops")


def test_methods_that_report_published_costs_differ_somewhere_from_what_runs() -> None:
    reporting = [cls for cls in tokred.list_methods().values() if cls.published_macs]
    assert {cls.method for cls in reporting} >= {"sta", "vid_tldr"}
    for cls in reporting:
        differs = False
        for backbone in default_backbones():
            try:
                case = Case(cls, backbone)
            except NotApplicable:
                continue
            differs |= any(step.macs != step.executed_macs for step in dry_run(case.reducer, case.geometry).steps)
        assert differs, f"{cls.method} reports what runs: its published_macs can go"
