"""Batches, number formats and degenerate inputs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tokred.attach import Attached
from tokred.testing.case import Case, difference, logits_of, same_decisions
from tokred.testing.check import check
from tokred.testing.failures import expect
from tokred.testing.identity import EXACT
from tokred.testing.near_ties import unless_a_near_tie
from tokred.testing.stand_in import View
from tokred.testing.ties import expect_earlier
from tokred.testing.trial import Trial

WIDE = View(torch.float64)
"""For comparisons in which sums may run in another order: near ties must not turn on rounding."""


@check("each sample's result does not depend on the other samples in its batch")
def check_batch_independence(case: Case) -> None:
    fast = case.attach()
    together, decided = case.logits(fast), case.decisions(fast)
    for i in range(len(case.clips)):
        alone = case.clips[i : i + 1]
        mine = [_rows(went, i, len(case.clips)) for went in decided]
        same = same_decisions(case.decisions(fast, alone), mine)
        expect(same, f"sample {i} alone to be reduced as in a batch of {len(case.clips)}", "other decisions")
        gap = difference(case.logits(fast, alone), together[i : i + 1])
        expect(
            gap <= EXACT, f"sample {i} alone to give the same logits (within {EXACT:g})", f"a difference of {gap:.2g}"
        )
    turned = difference(case.logits(fast, case.clips.flip(0)).flip(0), together)
    expect(turned <= EXACT, "the same logits in another order of the batch", f"a difference of {turned:.2g}")


def _rows(went: Tensor, sample: int, batch: int) -> Tensor:
    """The rows of one sample: several where the host runs its blocks for each step of a clip."""
    each = went.shape[0] // batch
    return went[sample * each : (sample + 1) * each]


@check_batch_independence.on_drawn
@unless_a_near_tie
def _batch_drawn(trial: Trial) -> None:
    if trial.example.batch < 2:
        return
    together = trial.view(WIDE)
    # In a large batch two of them say as much as all.
    chosen = range(trial.example.batch) if trial.example.batch <= 4 else (0, trial.example.batch - 1)
    for i in chosen:
        alone = trial.run(View(torch.float64, sample=i))
        mine = [went[i : i + 1] for went in together.decisions]
        what = f"sample {i} alone to be reduced as in a batch of {trial.example.batch}"
        expect(same_decisions(alone.decisions, mine), what, "other decisions")
        gap = difference(alone.tokens.x, together.tokens.x[i : i + 1])
        expect(gap <= EXACT, what, f"a difference of {gap:.2g} in its tokens")


@check("float64, float32, bfloat16, float16 and autocast all run, with the counts that were planned")
def check_dtypes(case: Case) -> None:
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        host = case.fresh().to(dtype)
        clips = case.clips.to(dtype)
        bare = case.logits(host, clips)
        fast = case.attach(copy.deepcopy(case.reducer), host).to(dtype)
        _runs(case, fast, clips, f"in {dtype}", bare)
        _same_outcome(case.logits(fast, clips).dtype, bare.dtype, f"logits from a model in {dtype}")
    with torch.autocast("cpu", torch.bfloat16):
        _runs(case, case.attach(), case.clips, "under autocast to bfloat16", case.bare())


@check_dtypes.on_drawn
def _dtypes_drawn(trial: Trial) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        x = trial.view(View(dtype)).tokens.x
        _same_outcome(x.dtype, dtype, f"tokens of {dtype}")
        expect(bool(x.isfinite().all()), f"finite tokens in {dtype}", "NaN or infinity")


@check("constant, zero, tiny and huge inputs give finite results, and ties go to the earlier token")
def check_degenerate_inputs(case: Case) -> None:
    ones = torch.ones_like(case.clips)
    blank = case.fresh()
    with torch.no_grad():
        for parameter in blank.parameters():
            parameter.zero_()
    inputs = {"zero": 0 * ones, "constant": ones, "tiny": 1e-12 * case.clips, "huge": 1e6 * case.clips}
    for name, clips in inputs.items():
        _runs(case, case.attach(), clips, f"on {name} inputs", case.bare(clips))
    with torch.no_grad():
        fast = case.attach(host=blank)
        bare = logits_of(blank(ones))
        _runs(case, fast, ones, "on a model whose weights are all zero, so that all tokens are equal", bare)
        again = same_decisions(case.decisions(fast, ones), case.decisions(fast, ones))
        expect(again, "the same decisions twice when every score is tied", "other decisions")
    expect_earlier(case.reducer, case.geometry)


@check_degenerate_inputs.on_drawn
def _degenerate_drawn(trial: Trial) -> None:
    x, size = trial.plain.tokens.x, trial.plain.tokens.size
    expect(bool(x.isfinite().all()), f"finite tokens from {trial.example.features} features", "NaN or infinity")
    if size is not None:
        expect(bool((size.isfinite() & (size >= 0)).all()), "finite masses that are not negative", "others")


def _runs(case: Case, fast: Attached, clips: Tensor, where: str, bare: Tensor) -> None:
    """Finite where the host is, of the host's shape, with the planned counts."""
    logits = case.logits(fast, clips)
    expect(logits.shape == bare.shape, f"logits of shape {tuple(bare.shape)} {where}", tuple(logits.shape))
    if bool(bare.isfinite().all()):
        expect(bool(logits.isfinite().all()), f"finite logits {where}, as from the host", "NaN or infinity")
    plan = case.plan(fast)
    if plan is not None:
        # Not what the last step leaves: a host with stages merges patches behind it.
        with torch.no_grad():
            left = fast.run(clips).tokens.count
        expect(left == plan.final, f"{plan.final} tokens at the end {where}, as planned", left)


def _same_outcome(got: object, expected: object, what: str) -> None:
    expect(got == expected, f"{what} to be {expected}", got)
