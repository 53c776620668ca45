"""Reported multiply-adds are those that run."""

from __future__ import annotations

from tokred.attach import attach
from tokred.compose import parts_of
from tokred.dry import dry_run
from tokred.measure.flops import count
from tokred.measure.handles import torch_macs
from tokred.testing.case import Case
from tokred.testing.check import check, content_decides
from tokred.testing.failures import expect


@check("the multiply-adds that are reported are those that run, the steps' own included", unless=content_decides)
def check_counted_flops(case: Case) -> None:
    # Where attention has windows, all queries: those of replicas are left out window by window, in ragged products.
    fast = attach(case.host, case.reducer, skip_replicas=False)
    plan = dry_run(case.reducer, fast.geometry)
    report = count(fast.geometry, plan)
    reported = report.executed_macs + report.skipped
    # With gradients: without them a CPU may find attention and its statistics in one pass, with fewer products.
    ran = torch_macs(fast, case.clips[:1].clone().requires_grad_(), norms=True, grad=True).macs
    steps = sum(step.executed_macs for step in plan.steps)
    expect(
        ran == reported,
        f"{reported:,} MAC for one sample, as reported ({steps:,} of them in its steps)",
        f"{ran:,} MAC in a forward, {ran - reported:+,}",
    )
    other = [step for step in plan.steps if step.macs != step.executed_macs]
    if other and not any(part.published_macs for part in parts_of(case.reducer)):
        first = other[0]
        expect(
            False,
            "macs() to say what a step runs, or TokenReducer.published_macs to say what the published algorithm does "
            "otherwise",
            f"{first.macs:,} MAC for the step at block {first.block}, which runs {first.executed_macs:,}",
        )
