"""Token counts: as promised, fewer with more strength, refused when impossible, multiplied by composition."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from tokred.compose import compose
from tokred.dry import dry_run
from tokred.reducer import Capabilities, TokenReducer
from tokred.testing.case import Case, Halve, Seen
from tokred.testing.check import check, content_decides
from tokred.testing.failures import Broken, NotApplicable, expect
from tokred.testing.trial import Trial

STRENGTHS = 4


@check("each step leaves the tokens that its schedule promises, for any batch and content", unless=content_decides)
def check_token_count_is_scheduled(case: Case) -> None:
    fast = case.attach()
    plan = case.plan(fast)
    assert plan is not None
    steps = []
    for clips in (case.clips, case.clips[:1], torch.zeros_like(case.clips[:2])):
        seen = case.watch(fast, clips)
        _expect_promises(case, seen)
        steps.append([(s.site.block, s.before.count, s.after.count) for s in seen if s.reduction is not None])
    expect(steps[0] == steps[1] == steps[2], "the same counts for every batch and content", steps)
    planned = [(s.block, s.n_in, s.n_out) for s in plan.steps]
    expect(steps[0] == planned, f"the counts of the plan, {planned}", steps[0])


@check_token_count_is_scheduled.on_drawn
def _promised_drawn(trial: Trial) -> None:
    for step, promise in zip(trial.plain.steps, trial.plain.promises, strict=True):
        assert promise is not None
        expect(
            step.after.patch_count == promise.left,
            f"{promise.left} patch tokens after the step at block {step.site.block} on {step.before.patch_count} "
            "(TokenReducer.promise: unless overridden, what the schedule says)",
            step.after.patch_count,
        )
        expect(
            step.after.groups == promise.groups or step.after.patch_count == step.before.patch_count,
            f"{promise.groups or 'no'} temporal groups after the step at block {step.site.block}, as promised",
            step.after.groups,
        )


def _keeps_all(capabilities: Capabilities) -> str | None:
    return content_decides(capabilities) or (None if capabilities.changes_length else "it never changes their number")


@check("more strength never leaves more tokens, and the whole declared range is possible", unless=_keeps_all)
def check_strength_is_monotone(case: Case) -> None:
    reducers = case.strengths(STRENGTHS)
    if not reducers:
        raise NotApplicable("it declares no strength")
    left = []
    for reducer in reducers:
        try:
            plan = dry_run(reducer, case.geometry)
            # Over all blocks: methods that bring tokens back end with as many at every strength.
            left.append((reducer.spec, sum(plan.mlp) + plan.final))
        except ValueError as error:
            raise Broken(f"{reducer.spec}, inside its declared range, to be possible", f"refused: {error}") from error
    counts = [count for _, count in left]
    what = "tokens in all MLPs and at the end"
    expect(counts == sorted(counts, reverse=True), f"fewer {what}, or as many, with more strength", left)
    expect(counts[-1] < counts[0], f"fewer {what} at the strongest setting than at the weakest", left)


@check("impossible settings are refused before any compute, with the value in the message")
def check_impossible_is_refused(case: Case) -> None:
    if case.zero is None:
        raise NotApplicable("it declares no strength")
    strength = case.reducer.strength_range(case.geometry)
    beyond = 10 * case.geometry.grid.patches
    values: tuple[float, ...] = (-1, beyond) if strength.whole else (0.0, -0.5, 1.5)
    for value in values:
        what = f"{strength.name} = {value:g}"
        try:
            attached = case.attach(case.reducer.with_(**{strength.name: value}))
        except ValueError as error:
            said = f"{value:g}" in str(error) or str(value) in str(error)
            expect(said, f"a message with the number when {what} is refused", f"{type(error).__name__}: {error}")
            continue
        noted = any(f"{value:g}" in note for note in attached.notes)
        expect(noted, f"{what} to be refused (ValueError), or a note that says what was done instead", "neither")


@check("composed with another method, before or behind it, counts multiply as planned", unless=content_decides)
def check_composition(case: Case) -> None:
    last = case.geometry.depth - 1
    alone = dry_run(case.reducer, case.geometry).final - case.geometry.prefix
    behind = _counts(case, compose(case.reducer, Halve(last)))
    expect(
        behind == math.ceil(0.5 * alone),
        f"half of its {alone} patch tokens, rounded up, when half are dropped after it",
        behind,
    )
    for first in (Halve(0), case.reducer):
        try:
            other = compose(first, case.reducer)
            dry_run(other, case.geometry)
        except ValueError:
            continue  # refused before any compute: e.g. an earlier step destroyed the frames that it needs
        _counts(case, other)


def _counts(case: Case, composed: TokenReducer) -> int:
    """Patch tokens left by a composition, after comparing the run with its plan and its promises."""
    fast = case.attach(composed)
    plan = case.plan(fast)
    assert plan is not None
    seen = case.watch(fast)
    _expect_promises(case, seen)
    ran = [(s.site.block, s.before.count, s.after.count) for s in seen if s.reduction is not None]
    planned = [(s.block, s.n_in, s.n_out) for s in plan.steps]
    expect(ran == planned, f"{composed.spec} to run as planned, {planned}", ran)
    expect(bool(case.logits(fast).isfinite().all()), f"finite logits from {composed.spec}", "NaN or infinity")
    return plan.final - case.geometry.prefix


def _expect_promises(case: Case, seen: list[Seen]) -> None:
    """Each step left what its reducer promises for the tokens that it found."""
    for step in seen:
        before = step.before
        geometry = replace(case.geometry, grid=before.grid)
        promised = step.reducer.promise(step.site.step, before.patch_count, before.groups, geometry).left
        expect(
            step.after.patch_count == promised,
            f"{promised} patch tokens after the step at block {step.site.block} on {before.patch_count} "
            "(TokenReducer.promise: unless overridden, what the schedule says)",
            step.after.patch_count,
        )
