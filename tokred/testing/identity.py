"""Strength zero is the host, taking blocks apart changes nothing, detaching leaves nothing."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokred.attach import detach
from tokred.compose import compose, parts_of
from tokred.testing.case import Case, Reader, difference, logits_of, same_decisions
from tokred.testing.check import check
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.trial import Refused, Trial

EXACT = 1e-5
"""Relative difference of logits allowed in float32 where the arithmetic is the same and its order is not."""

KERNELS = 1e-4
"""The same between two attention kernels, after all blocks."""


@check(
    "strength zero is the unreduced model",
    unless=lambda c: None if c.identity_at_zero is True else f"it declares why not: {c.identity_at_zero}",
)
def check_identity_at_zero(case: Case) -> None:
    if case.zero is None:
        raise NotApplicable("it declares no strength that could be zero")
    got = difference(case.logits(case.attach(case.zero)), case.bare())
    expect(
        got <= EXACT,
        f"the host's logits from {case.zero.spec}, its weakest setting (within {EXACT:g})",
        f"a difference of {got:.2g}",
    )


@check_identity_at_zero.on_drawn
def _zero_drawn(trial: Trial) -> None:
    if trial.weakest is None:
        return
    try:
        steps = trial.run(reducer=trial.weakest).steps
    except Refused:
        return
    for step in steps:
        same = step.reduction is None or torch.equal(step.after.x, step.before.x)
        expect(same, f"the tokens untouched at block {step.site.block} by {trial.weakest.spec}, its weakest", "changed")


@check("blocks that are taken apart are the host's: layer scale, norms of queries and keys, biases")
def check_blocks_taken_apart(case: Case) -> None:
    gap = difference(case.logits(case.attach(Reader())), case.bare())
    expect(gap <= EXACT, f"the host's logits from blocks taken apart (within {EXACT:g})", f"a difference of {gap:.2g}")


@check("it decides the same whichever attention kernel runs")
def check_fused_equals_eager(case: Case) -> None:
    fast = case.attach()
    logits, decisions = case.logits(fast), case.decisions(fast)
    with sdpa_kernel(SDPBackend.MATH):
        eager_logits, eager_decisions = case.logits(fast), case.decisions(fast)
    expect(same_decisions(decisions, eager_decisions), "the same decisions with unfused attention", "other decisions")
    gap = difference(logits, eager_logits)
    expect(gap <= KERNELS, f"the same logits with unfused attention (within {KERNELS:g})", f"a difference of {gap:.2g}")


@check("nothing is left on the model after detach, and nothing holds it")
def check_detach_leaves_nothing(case: Case) -> None:
    host = case.fresh()
    before, logits = _inventory(host), case.bare()
    tensors = {name: tensor.clone() for name, tensor in host.state_dict().items()}
    fast = case.attach(host=host)
    case.logits(fast)
    case.watch(fast)
    expect(detach(fast) is host, "detach to return the model that was given", "another object")
    after = _inventory(host)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    expect(not changed, "every module of the host as it was (attributes, hooks, classes)", f"changes in {changed[:3]}")
    written = [name for name, tensor in host.state_dict().items() if not torch.equal(tensor, tensors[name])]
    expect(not written, "the host's weights as they were", f"changes in {written[:3]}")
    with torch.no_grad():
        expect(torch.equal(logits_of(host(case.clips)), logits), "the host's logits bit for bit", "other logits")
    gone = weakref.ref(host)
    del fast, host
    if gone() is not None:
        gc.collect()  # slow, and needed only where something goes round in a circle
    expect(gone() is None, "nothing to hold the model after detach, when its owner lets go of it", "it is alive")


@check("a composition with a part that changes nothing is the method itself")
def check_neutral_composition(case: Case) -> None:
    if any(part.evaluates for part in parts_of(case.reducer)):
        raise NotApplicable("it runs blocks itself: nothing can act inside them")
    alone, together = case.attach(), case.attach(compose(Reader(), case.reducer))
    same = same_decisions(case.decisions(alone), case.decisions(together))
    expect(same, "the same decisions beside a part that does nothing", "other decisions")


def _inventory(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """What each module is and carries, apart from the values of its tensors."""
    plain = (int, float, str, bool, tuple, type(None))
    found: dict[str, tuple[object, ...]] = {}
    for name, module in model.named_modules():
        attributes = tuple(
            (key, value if isinstance(value, plain) else id(value), len(value) if isinstance(value, dict) else None)
            for key, value in sorted(vars(module).items())
        )
        found[name or "the model"] = (type(module), attributes)
    return found
