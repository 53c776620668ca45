"""Declarations that switch clauses off: true, where it can be seen that they are not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from tokred.compose import parts_of
from tokred.reducer import TokenReducer
from tokred.reduction import Keep
from tokred.testing.case import Case, Seen, difference, logits_of
from tokred.testing.content import ATTENTION, FEATURES
from tokred.testing.example import StepExample
from tokred.testing.failures import WARNING, expect
from tokred.testing.identity import EXACT
from tokred.testing.state import equal, held
from tokred.testing.trial import Refused, Trial

HOSTS = (
    StepExample(grid=(4, 4, 4), dim=8, heads=2, step=None),
    StepExample(grid=(4, 4, 4), dim=8, heads=2, step=None, prefix=1, class_token=True),
    StepExample(grid=(4, 6, 6), dim=8, heads=2, step=None, windows=True),
)
"""A plain host, one with a class token, one with windows: a method may ask each for something else."""

COSTLY = frozenset({"attention", "received", "entropy", "ffn"})
"""Statistics for which a host does more, or clauses are switched off. Others are free, and rows of one query say with
what a method can do instead of all."""


def expect_needs_read(case: Case) -> None:
    """Each statistic of all rows that is declared is read somewhere."""
    needs = case.reducer.capabilities.needs & COSTLY
    unread = [need for need in sorted(needs) if not _reads(case, need)]
    what = "every statistic that is declared to be read on some host, at inference or in training"
    expect(not unread, what, f"{', '.join(unread)} never read")


def _reads(case: Case, need: str) -> bool:
    """Whether anything changes when a statistic may not be read: on this host, or on others."""
    reducer = copy.deepcopy(case.reducer)
    for part in parts_of(reducer):
        part.capabilities = replace(part.capabilities, needs=part.capabilities.needs - {need})
    try:
        case.watch(case.attach(reducer))
    except Exception:
        return True  # it was read, or the host takes the method for its sake
    for training in (False, True):
        for trial in _trials(reducer):
            reducer.train(training)
            try:
                trial.run()
            except Refused:
                continue
            except Exception:
                return True  # whatever a method raises that misses a statistic, it wanted to read it
    return False


def _trials(reducer: TokenReducer) -> Iterator[Trial]:
    for example in HOSTS:
        try:
            yield Trial(reducer, example)
        except Refused:
            continue


def expect_state(case: Case) -> None:
    """What declares that it keeps state has some after a forward, or goes on otherwise than from the start."""
    if not case.reducer.capabilities.stateful:
        return
    fast = case.attach()
    fast.reset()
    before = held(case.reducer)
    with torch.no_grad():
        fast(case.clips)
        after = held(case.reducer)
        next_one: Tensor = logits_of(fast(case.clips.flip(0) * 2))
        fast.reset()
        first: Tensor = logits_of(fast(case.clips.flip(0) * 2))
    fast.reset()
    expect(
        not equal(before, after) or not torch.equal(next_one, first),
        "something to be kept between forwards, as stateful=True declares (it switches clauses off)",
        "the same attributes after a forward as before, and the same result of the next one as of a first one",
    )


def expect_not_whole(case: Case) -> None:
    """What declares that strength zero is not the host is not the host."""
    if case.zero is None or case.reducer.capabilities.identity_at_zero is True:
        return
    whole = difference(case.logits(case.attach(case.zero)), case.bare()) <= EXACT
    for trial in _trials(copy.deepcopy(case.zero)) if whole else ():
        try:
            whole &= all(s.reduction is None or torch.equal(s.after.x, s.before.x) for s in trial.run().steps)
        except Refused:
            continue
    what = (
        f"other logits than the host's from {case.zero.spec}, since identity_at_zero says why they cannot be the same"
    )
    expect(not whole, what, f"the host's logits (within {EXACT:g}): identity_at_zero=True is true of it")


def expect_grid(seen: list[Seen]) -> None:
    """Where whole frames enter a step that keeps some tokens, each frame that is left keeps a rectangle of one size."""
    for step in seen:
        groups, grid = step.before.groups, step.before.grid
        reduction = step.reduction
        if not isinstance(reduction, Keep) or groups is None or step.before.patch_count != groups * grid.per_frame:
            continue
        kept = reduction.positions()[:, step.before.prefix :] >= 0
        frames = kept.reshape(-1, grid.h, grid.w)  # (B * T, h, w)
        frames = frames[frames.flatten(1).any(1)]
        rows, columns = frames.any(2), frames.any(1)
        full = torch.equal(frames, rows[:, :, None] & columns[:, None])
        sizes = {tuple(size) for size in torch.stack([rows.sum(1), columns.sum(1)], dim=1).tolist()}
        what = (
            f"a rectangle of one size in every frame after the step at block {step.site.block}, as keeps_grid declares"
        )
        expect(full and len(sizes) == 1, what, "kept tokens that are no grid")


def expect_counts_vary(case: Case) -> str | None:
    """Counts that are said to depend on the content do; a warning where they are always what the schedule promises.

    Raises:
        Broken: always the same ones, which are others than promised.
    """
    if case.reducer.capabilities.static_counts:
        return None
    reducer = copy.deepcopy(case.reducer)
    like = StepExample.like(case.geometry)
    examples = [replace(like, features=kind, seed=i) for i, kind in enumerate(FEATURES)]
    examples += [replace(like, attention=kind, seed=i) for i, kind in enumerate(ATTENTION)]
    counts, promised = set(), set()
    for example in examples:
        try:
            steps = Trial(reducer, example).run().steps
            promised.add(tuple(_promised(case, step) for step in steps))
        except Refused:
            continue
        counts.add(tuple(step.after.patch_count for step in steps))
    if len(counts) != 1:
        return None
    told = f"its token counts were the same for {len(examples)} different contents"
    expect(
        counts == promised,
        "token counts that differ with the content, as static_counts=False declares, or those of its schedule, "
        f"{sorted(promised)}",
        f"{sorted(counts)} for all of {len(examples)} different contents",
    )
    return f"{WARNING}it declares static_counts=False, which switches clauses off, but {told}"


def _promised(case: Case, step: Seen) -> int:
    before = step.before
    geometry = replace(case.geometry, grid=before.grid)
    return step.reducer.promise(step.site.step, before.patch_count, before.groups, geometry).left
