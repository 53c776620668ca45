"""What a step does to the tokens: mass, order, prefix, provenance, restoring."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tokred.generate import Generate, Recover
from tokred.reducer import Capabilities
from tokred.reduction import Fuse, Keep, Merge, Mix, Reduction
from tokred.testing.case import Case, Seen, difference
from tokred.testing.check import check
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.trial import Trial
from tokred.testing.values import other_masses


def _steps(case: Case) -> list[tuple[str, Seen, Reduction]]:
    """The steps that change something, each with a name for messages."""
    found = [(f"the step at block {s.site.block}", s, s.reduction) for s in case.watch() if s.reduction is not None]
    if not found:
        raise NotApplicable("it takes no step on tokens")
    return found


@check("merging conserves mass: what is kept, merged and dropped adds up to what was there")
def check_mass_conserved(case: Case) -> None:
    for where, step, reduction in _steps(case):
        _expect_mass(where, step, reduction)
    run = case.attach().run(case.clips, trace=True, record=True)
    source, tokens = run.tokens.source, run.tokens
    assert source is not None
    inside = bool(((source >= -1) & (source < tokens.count)).all())
    expect(inside, f"every patch traced to -1 (dropped) or one of {tokens.count} tokens", "a place that does not exist")
    counted = all(isinstance(r, (Keep, Fuse)) or (isinstance(r, Merge) and r.weight is None) for _, r in run.steps)
    if counted and tokens.cover is None and tokens.size is not None:
        carried = torch.zeros_like(tokens.size).scatter_add(1, source.clamp_min(0), (source >= 0).to(tokens.size))
        gap = difference(tokens.size[:, tokens.prefix :], carried[:, tokens.prefix :])
        expect(gap <= 1e-5, "each token at the end to weigh as many patches as are traced to it", "other masses")


@check("tokens come out once each, prefix tokens in front, in the order that is declared")
def check_order_and_prefix_kept(case: Case) -> None:
    for where, step, reduction in _steps(case):
        _expect_order(case.reducer.capabilities, where, step, reduction)


@check("restoring returns tokens that went alone to their places, and fills those of dropped ones")
def check_restore(case: Case) -> None:
    for where, step, reduction in _steps(case):
        _expect_restored(where, step, reduction)


@check_mass_conserved.on_drawn
def _mass_drawn(trial: Trial) -> None:
    for where, step, reduction in trial.reduced:
        _expect_mass(where, step, reduction)


@check_order_and_prefix_kept.on_drawn
def _order_drawn(trial: Trial) -> None:
    for where, step, reduction in trial.reduced:
        _expect_order(step.reducer.capabilities, where, step, reduction)


@check_restore.on_drawn
def _restore_drawn(trial: Trial) -> None:
    for where, step, reduction in trial.reduced:
        _expect_restored(where, step, reduction)


def _expect_mass(where: str, step: Seen, reduction: Reduction) -> None:
    if isinstance(reduction, Merge) and reduction.weight is not None:
        return  # weighted merges scale masses by their definition
    sizes = [step.before.size]
    if not reduction.brings_back:  # what comes back weighs what it weighed
        sizes.append(other_masses(step.before.x, step.before.prefix))
    for size in sizes:
        _expect_sums(where, step, reduction, size)


def _expect_sums(where: str, step: Seen, reduction: Reduction, size: Tensor | None) -> None:
    """With the masses that were there, and with those that earlier merges may have left."""
    before, after = replace(step.before, size=size).masses, reduction.masses(size)
    went = reduction.positions()
    dropped = (before * (went < 0)).sum(1)
    left = torch.full_like(dropped, reduction.n_out) if after is None else after.sum(1)
    gap = (left + dropped - before.sum(1)).abs().amax().item()
    expect(
        gap <= 1e-3,
        f"{before.sum(1)[0]:g} patches in kept, merged and dropped tokens after {where}",
        f"{left[0]:g} in tokens and {dropped[0]:g} dropped",
    )
    if after is not None and not isinstance(reduction, (Mix, Recover)):
        sums = torch.zeros_like(after).scatter_add(1, went.clamp_min(0), before * (went >= 0))
        expect(difference(after, sums) <= 1e-5, f"each token of {where} to weigh what went into it", "other masses")


def _expect_order(capabilities: Capabilities, where: str, step: Seen, reduction: Reduction) -> None:
    prefix, n = step.before.prefix, step.before.count
    went = reduction.positions()
    places = torch.arange(prefix, device=went.device).expand(went.shape[0], prefix)
    stayed = torch.equal(went[:, :prefix], places) and torch.equal(step.after.x[:, :prefix], step.before.x[:, :prefix])
    expect(stayed, f"the {prefix} prefix tokens untouched in front after {where}", "moved or changed prefix tokens")
    if prefix and not isinstance(reduction, Mix):
        behind = went[:, prefix:]
        joined = bool(((behind >= 0) & (behind < prefix)).any())
        expect(not joined, f"no patch in a prefix token after {where}", "patches merged into one")
    if isinstance(reduction, (Keep, Fuse)):
        index = reduction.index
        valid = bool(((index >= 0) & (index < n)).all())
        expect(valid, f"kept positions in 0..{n - 1} at {where}", f"{index.amin()}..{index.amax()}")
        twice = bool((index.sort(dim=1).values.diff(dim=1) == 0).any())
        expect(not twice, f"every kept token once after {where}", "a token that was kept twice")
    occupied = torch.zeros(went.shape[0], reduction.n_out + 1, dtype=torch.bool, device=went.device)
    occupied.scatter_(1, torch.where(went < 0, reduction.n_out, went), True)
    if not isinstance(reduction, (Mix, Recover)):
        expect(bool(occupied[:, :-1].all()), f"every token after {where} to come from one before it", "an empty one")
    if capabilities.keeps_order and not isinstance(reduction, (Fuse, Mix, Recover)):
        expect(_in_order(went, reduction.n_out), f"the original order after {where}, as declared", "another order")
    if capabilities.keeps_frames and step.before.groups is not None:
        expect(_in_frames(step, reduction), f"every temporal group to keep as many after {where}, as declared", "not")


def _expect_restored(where: str, step: Seen, reduction: Reduction) -> None:
    if isinstance(reduction, Mix):
        return  # a soft mixture has no token that went alone
    x = torch.randn(step.before.x.shape, generator=torch.Generator().manual_seed(0))
    went = reduction.positions()
    companions = torch.zeros(went.shape[0], reduction.n_out, dtype=torch.int64)
    companions.scatter_add_(1, went.clamp_min(0), (went >= 0).long())
    alone = (went >= 0) & (companions.gather(1, went.clamp_min(0)) == 1)
    if isinstance(reduction, Fuse):
        alone &= went < reduction.n_out - 1  # the fused token is weighted, also when it stands for one
    if isinstance(reduction, (Generate, Recover)):
        alone &= went < step.before.prefix  # layers make the others anew
    back = reduction.restore(reduction.apply(x))
    expect(back.shape == x.shape, f"{tuple(x.shape)} restored from {where}", tuple(back.shape))
    wrong = int((alone & (back != x).any(-1)).sum())
    expect(wrong == 0, f"tokens that went alone through {where} back in their places", f"{wrong} that are not")
    shared = went >= 0
    taken = reduction.apply(x).gather(1, went.clamp_min(0)[..., None].expand_as(x))
    copied = bool((back == taken)[shared].all())
    expect(copied, f"tokens that were merged at {where} to get their merged token back", "something else")
    if bool((~shared).any()):
        _expect_filled(where, reduction, x, back, shared)


def _expect_filled(where: str, reduction: Reduction, x: Tensor, back: Tensor, stayed: Tensor) -> None:
    """What a dropped place gets: a copy of the nearest token of the sequence that was kept, or what is asked for."""
    places = torch.arange(stayed.shape[1])
    far = 2 * stayed.shape[1]
    # The kept place before each one, and the one behind it; where both are as near, either will do.
    before = torch.where(stayed, places, -far).cummax(dim=1).values
    behind = torch.where(stayed, places, far).flip(1).cummin(dim=1).values.flip(1)
    copies = torch.zeros_like(stayed)
    for near, other in ((before, behind), (behind, before)):
        held = back.gather(1, near.clamp(0, stayed.shape[1] - 1)[..., None].expand_as(back))
        copies |= (held == back).all(-1) & ((places - near).abs() <= (places - other).abs())
    wrong = int((~stayed & ~copies).sum())
    what = f"each place that was dropped at {where} to get a copy of the nearest kept token of the sequence"
    expect(wrong == 0, what, f"something else on {wrong} of {int((~stayed).sum())}")
    for fill in (0.0, 2.5):
        filled = reduction.restore(reduction.apply(x), fill)
        right = torch.where(stayed[..., None], back, fill)
        expect(torch.equal(filled, right), f"{fill:g} on the places dropped at {where}, with fill={fill:g}", "others")


def _in_order(went: Tensor, n_out: int) -> bool:
    """Whether one member can be chosen of every output token so that the members rise: the first that still fits."""
    for row in went.tolist():
        members: list[list[int]] = [[] for _ in range(n_out)]
        for place, target in enumerate(row):
            if target >= 0:
                members[target].append(place)
        last = -1
        for group in members:
            fitting = [place for place in group if place > last]
            if not fitting:
                return False
            last = fitting[0]
    return True


def _in_frames(step: Seen, reduction: Reduction) -> bool:
    """Whether the groups that the reduction declares hold equal shares, each from its own stretch of the clip; or each
    from one group before it, in temporal order, where whole groups were dropped."""
    groups = reduction.groups
    if groups is None or step.before.groups is None or step.after.patch_count % groups:
        return False
    prefix = step.before.prefix
    went = reduction.positions()[:, prefix:] - prefix
    kept = reduction.positions()[:, prefix:] >= 0
    places = torch.arange(went.shape[1])
    old = places // (step.before.patch_count // groups)
    new = went // (step.after.patch_count // groups)
    if bool((new == old)[kept].all()):
        return True
    own = (places // (step.before.patch_count // step.before.groups)).expand_as(went)
    first = torch.full((went.shape[0], groups), step.before.groups).scatter_reduce(
        1, new.clamp_min(0), torch.where(kept, own, step.before.groups), "amin"
    )
    single = bool((first.gather(1, new.clamp_min(0)) == own)[kept].all())
    return single and bool((first.diff(dim=1) > 0).all())
