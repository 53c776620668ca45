"""Gradients: through every step to every token that it reads, to the host's weights, to the reducer's own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tokred.attach import Attached
from tokred.learned import learned_parts
from tokred.reduction import Reduction
from tokred.schedule import ScheduleError
from tokred.testing.case import Case, Reader, Seen, difference, logits_of
from tokred.testing.check import check
from tokred.testing.failures import NotApplicable, expect
from tokred.testing.identity import EXACT
from tokred.testing.trial import Trial

SLOPE = 1e-5
"""Relative to the sum of all parts: a change between two float32 results, against the one that a slope foretells."""


@check("gradients reach the input and every weight that they reach without it, also with checkpointing")
def check_gradients(case: Case) -> None:
    bare, reduced = _gradients(case.fresh(), case.clips), _gradients(case.attach(host=case.fresh()), case.clips)
    for name, gradient in reduced.items():
        expect(bool(gradient.isfinite().all()), f"finite gradients for {name}", "NaN or infinity")
    expect(bool(_of(reduced, "the input").any()), "a gradient on the input", "none")
    # Attention of one token is that token, whatever the query: there, a gradient of zero is right.
    alone = _fewest(case) <= 1
    lost = [
        name
        for name, gradient in bare.items()
        if gradient.any() and not (name in reduced if alone else _of(reduced, name).any())
    ]
    expect(not lost, "a gradient on every weight that has one without the reducer", f"none on {', '.join(lost[:3])}")
    for seen in case.watch():
        if seen.reduction is not None:
            where = f"the step at block {seen.site.block}"
            expect(bool(_slope(where, seen, seen.reduction).any()), f"gradients through {where} to its input", "zeros")
            _expect_slopes(where, seen, seen.reduction)
    host: Any = case.fresh()
    if hasattr(host, "set_grad_checkpointing"):
        host.set_grad_checkpointing()
        again = _gradients(case.attach(host=host), case.clips)
        gap = max(difference(again[name], gradient) for name, gradient in reduced.items())
        expect(gap <= EXACT, "the same gradients with gradient checkpointing", f"a difference of {gap:.2g}")
    if case.reducer.capabilities.trainable:
        _expect_learning(case)


@check_gradients.on_drawn
def _gradients_drawn(trial: Trial) -> None:
    for where, step, reduction in trial.reduced:
        _expect_slopes(where, step, reduction)


def _expect_learning(case: Case) -> None:
    """In training every parameter of the reducer takes part: hard decisions at inference have no gradient, so learned
    methods soften or mask there."""
    attached = case.attach(copy.deepcopy(case.reducer), case.fresh()).train()
    reads = _Reads({id(p): f"reducer.{name}" for name, p in attached.reducer.named_parameters() if p.requires_grad})
    try:
        with reads:
            learning = _gradients(attached, case.clips)
    except ScheduleError as error:
        raise NotApplicable(f"{case.backbone} refuses {case.reducer.spec} in training: {error}") from error
    bad = [name for name, gradient in learning.items() if not bool(gradient.isfinite().all())]
    expect(not bad, "finite gradients in training mode", f"NaN or infinity on {', '.join(bad[:3])}")
    reached = [name for name in reads.names.values() if _of(learning, name).any()]
    what = "in training mode, a gradient on some parameter of the reducer, as trainable declares"
    expect(bool(reached) or not _acts(attached, case.clips), what, "none")
    # Zero may be right (a constant on all scores changes no choice), and so is not being read (no step needs it here);
    # being read with no way for a gradient to come back is not.
    cut = reads.read - learning.keys()
    if cut:
        cut -= _taught(case, attached)
    what = "in training mode, a way for gradients to every parameter of the reducer that is read"
    expect(not cut, what, f"none to {', '.join(sorted(cut)[:3])}")


@torch.no_grad()
def _acts(attached: Attached, clips: Tensor) -> bool:
    """Whether it takes a step at all: the smallest cut of a tiny grid may be none."""
    return bool(attached.run(clips, record=True).steps)


def _taught(case: Case, attached: Attached) -> set[str]:
    """Parameters that losses of the reducer's own reach, which its training adds to the task's."""
    with torch.no_grad():
        teacher = case.attach(Reader(), case.fresh()).run(case.clips)
    student = attached.run(case.clips, record=True)
    losses = [
        loss for part in learned_parts(attached.reducer) for loss in part.training_losses(student, teacher).values()
    ]
    if not losses:
        return set()
    attached.zero_grad()
    torch.stack([loss.sum() for loss in losses]).sum().backward()
    return {f"reducer.{name}" for name, p in attached.reducer.named_parameters() if p.grad is not None}


def _expect_slopes(where: str, step: Seen, reduction: Reduction) -> None:
    """The gradient of a linear step foretells its change in any direction: so it reaches every token that counts."""
    slope = _slope(where, step, reduction)
    if reduction.chosen is not None:
        kept = slope.any(-1).gather(1, reduction.chosen)
        expect(bool(kept.all()), f"gradients through {where} to every kept token", "zeros on some")
    if not reduction.linear:
        return  # layers, whose slope is autograd's business
    random = torch.Generator().manual_seed(0)
    x = torch.randn(step.before.x.shape, generator=random)
    turn = torch.randn(x.shape, generator=random)
    x.requires_grad_()
    y = reduction.apply(x, step.before.size)
    weights = torch.randn(y.shape, generator=random)
    (slope,) = torch.autograd.grad((y * weights).sum(), x)
    with torch.no_grad():
        change = ((reduction.apply(x + turn, step.before.size) - y) * weights).double().flatten(1)
    foretold = (slope * turn).double().flatten(1)
    scale = change.abs().sum(1) + foretold.abs().sum(1)
    right = bool(((change.sum(1) - foretold.sum(1)).abs() <= SLOPE * scale).all())
    zeros = int((~slope.any(-1)).sum())
    expect(
        right,
        f"gradients through {where} to every token that its result depends on",
        f"none on {zeros} of {slope[..., 0].numel()} tokens"
        if zeros
        else "gradients that are not its slope (a step that is not linear says linear = False)",
    )


def _slope(where: str, step: Seen, reduction: Reduction) -> Tensor:
    """The gradient (B, N, C) of the sum of a step's result, on the features that were there."""
    x = step.before.x.detach().clone().requires_grad_()
    y = reduction.apply(x, step.before.size)
    expect(y.requires_grad, f"a differentiable step: {where}", "a detached result")
    (slope,) = torch.autograd.grad(y.sum(), x)
    expect(bool(slope.isfinite().all()), f"finite gradients through {where}", "NaN or infinity")
    return slope


class _Reads(TorchFunctionMode):
    """Which of some tensors are an argument of a torch function while it is active.

    Args:
        names: by the id of the tensor.
    """

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self.names = names
        self.read: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":  # attributes, such as a dtype, are not values
            self._note((*args, *(kwargs or {}).values()))
        return func(*args, **(kwargs or {}))

    def _note(self, values: Any) -> None:
        for value in values:
            if isinstance(value, (tuple, list)):
                self._note(value)
            elif id(value) in self.names:
                self.read.add(self.names[id(value)])


@torch.no_grad()
def _fewest(case: Case) -> int:
    """The fewest tokens in the attention of any block."""
    plan = case.plan(case.attach())
    if plan is not None:
        return min(plan.attention)
    return min((seen.after.count for seen in case.watch()), default=case.geometry.grid.patches)


def _gradients(model: nn.Module, clips: Tensor) -> dict[str, Tensor]:
    """Gradients of a fixed weighting of the logits, by the host's own parameter names."""
    x = clips.clone().requires_grad_()
    logits = logits_of(model(x))
    if not logits.requires_grad:
        raise NotApplicable("the host itself gives no gradient")
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))
    (logits * weights).sum().backward()
    found = {
        name.removeprefix("host."): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    if x.grad is not None:
        found["the input"] = x.grad
    return found


def _of(gradients: dict[str, Tensor], name: str) -> Tensor:
    return gradients.get(name, torch.zeros(1))
