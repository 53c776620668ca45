"""Copies, pickles, state dicts, settings and torch.compile."""

from __future__ import annotations

import copy
import io
import pickle

import torch
from torch import Tensor

from tokred.attach import Attached
from tokred.compose import Composed
from tokred.registry import build, list_methods
from tokred.testing.case import Case, difference
from tokred.testing.check import check
from tokred.testing.failures import Broken, expect
from tokred.testing.identity import EXACT


@check("copies, pickles, state dicts and its own settings give the same model again")
def check_serialisation(case: Case) -> None:
    fast = case.attach()
    logits = case.logits(fast)
    expect(torch.equal(case.logits(copy.deepcopy(fast)), logits), "equal logits from a deep copy", "other logits")
    kind = type(case.reducer)
    if "<locals>" not in kind.__qualname__ and kind.__module__ != "__main__":  # Python cannot pickle those classes
        try:
            again = pickle.loads(pickle.dumps(fast))
        except Exception as error:
            raise Broken("the attached model to be pickled", f"{type(error).__name__}: {error}") from error
        expect(torch.equal(case.logits(again), logits), "equal logits after pickling", "other logits")
    rebuilt = case.reducer if isinstance(case.reducer, Composed) else kind(**case.reducer.config)
    other = case.attach(rebuilt, case.fresh())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1.0)
    buffer = io.BytesIO()
    torch.save(fast.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    expect(
        torch.equal(case.logits(other), logits),
        f"equal logits from a reducer made of its settings ({case.reducer.spec}) with the state dict loaded",
        f"a difference of {difference(case.logits(other), logits):.2g}",
    )
    if list_methods().get(case.reducer.method) is kind:
        twin = build(case.reducer.spec)
        expect(twin.spec == case.reducer.spec, f"{case.reducer.spec} built again from that string", twin.spec)
        expect(twin.config == case.reducer.config, f"its settings {case.reducer.config}", twin.config)


@check("the same logits under torch.compile", once=True)
def check_compile(case: Case) -> str:
    fast = case.attach()
    logits = case.logits(fast)
    try:
        got, how = _compiled(fast, case, whole=True), "in one graph"
    except Exception:
        try:
            got, how = _compiled(fast, case, whole=False), "with graph breaks"
        except Exception as error:
            first = str(error).strip().splitlines()[:1]
            raise Broken("torch.compile to work", f"{type(error).__name__}: {''.join(first)}") from error
    gap = difference(got, logits)
    expect(gap <= EXACT, f"the same logits under torch.compile (within {EXACT:g})", f"a difference of {gap:.2g}")
    return how


@check("torch.inference_mode works")
def check_inference_mode(case: Case) -> None:
    fast = case.attach()
    with torch.inference_mode():
        got = fast(case.clips)
    expect(torch.equal(got.clone(), case.logits(fast)), "equal logits in inference mode", "other logits")


@torch.no_grad()
def _compiled(fast: Attached, case: Case, whole: bool) -> Tensor:
    """Logits of the compiled model; "eager" traces as every backend does and generates no code: what a reducer can
    break is the tracing."""
    torch._dynamo.reset()
    fast.reset()
    try:
        return torch.compile(fast, backend="eager", fullgraph=whole)(case.clips)
    finally:
        torch._dynamo.reset()
