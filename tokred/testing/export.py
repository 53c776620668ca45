"""Copies, pickles, state dicts, settings and inference mode."""

from __future__ import annotations

import copy
import io
import pickle

import torch

from tokred.compose import Composed
from tokred.registry import build, list_methods
from tokred.testing.case import Case, difference, logits_of
from tokred.testing.check import check
from tokred.testing.failures import Broken, expect
from tokred.testing.remake import expect_settings_alone


@check("copies, pickles, state dicts and its own settings give the same model again")
def check_serialisation(case: Case) -> None:
    expect_settings_alone(case.reducer)
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


@check("torch.inference_mode works")
def check_inference_mode(case: Case) -> None:
    fast = case.attach()
    with torch.inference_mode():
        got = logits_of(fast(case.clips))
    expect(torch.equal(got.clone(), case.logits(fast)), "equal logits in inference mode", "other logits")
