"""The contract of every reducer: all clauses, run from a prompt, a command or pytest."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from tokred.probe import UndeclaredNeed
from tokred.reducer import TokenReducer
from tokred.testing import (
    costs,
    counts,
    declared,
    devices,
    export,
    graphs,
    identity,
    numerics,
    programs,
    state,
    tokens,
)
from tokred.testing.case import Case, Subject, construct
from tokred.testing.check import Check
from tokred.testing.failures import Broken, CheckFailed, NotApplicable, Outcome
from tokred.testing.hosts import Backbone, default_backbones

CHECKS: tuple[Check, ...] = (
    declared.check_declared_needs,
    declared.check_declarations,
    identity.check_identity_at_zero,
    identity.check_fused_equals_eager,
    identity.check_neutral_composition,
    identity.check_detach_leaves_nothing,
    counts.check_token_count_is_scheduled,
    counts.check_strength_is_monotone,
    counts.check_impossible_is_refused,
    counts.check_composition,
    tokens.check_mass_conserved,
    tokens.check_order_and_prefix_kept,
    tokens.check_restore,
    numerics.check_batch_independence,
    numerics.check_gradients,
    numerics.check_dtypes,
    numerics.check_degenerate_inputs,
    state.check_determinism,
    state.check_no_global_state,
    state.check_no_state_between_forwards,
    state.check_tokens_untouched,
    state.check_threads,
    export.check_serialisation,
    export.check_inference_mode,
    costs.check_counted_flops,
    devices.check_autocast,
    devices.check_cuda_autocast,
    graphs.check_compile,
    programs.check_export,
    programs.check_onnx,
    devices.check_cuda_graphs,
)
"""Every clause, cheap ones first."""

ATTACHES = "check_attaches"


def check_reducer(
    reducer: Subject, backbones: Sequence[Backbone] | None = None, only: str | None = None
) -> tuple[Outcome, ...]:
    """Check that a reducer keeps the contract.

    Args:
        reducer: a class, checked with its defaults (at a middle strength if the defaults do nothing), or an instance.
        backbones: models to run on; default: a small video ViT, a small timm ViT with prefix tokens, a small VideoSwin.
        only: the name of one check.
    Returns:
        What passed, and what was skipped for which reason.
    Raises:
        CheckFailed: the clauses that are broken: what was expected, what came, how to see it again.
    """
    outcomes = run_checks(reducer, backbones, only)
    failed = tuple(outcome for outcome in outcomes if outcome.status == "failed")
    if failed:
        clauses = len({outcome.check for outcome in failed})
        head = f"{failed[0].reducer} breaks {clauses} clause{'s' if clauses > 1 else ''} of the contract"
        raise CheckFailed("\n\n".join([head, *(outcome.detail for outcome in failed)]), failed)
    return outcomes


def run_checks(
    reducer: Subject,
    backbones: Sequence[Backbone] | None = None,
    only: str | None = None,
    progress: Callable[[Outcome], None] = lambda _: None,
) -> tuple[Outcome, ...]:
    """All outcomes of ``check_reducer``, failures included.

    Args:
        progress: called with each outcome as it comes.
    Raises:
        ValueError: ``only`` is no check.
    """
    chosen = CHECKS if only is None else tuple(check for check in CHECKS if check.name == only)
    if not chosen and only != ATTACHES:
        raise ValueError(f"only = {only!r} is not one of {', '.join(check.name for check in CHECKS)}")
    outcomes: list[Outcome] = []
    refused: list[str] = []
    done: set[str] = set()
    for backbone in default_backbones() if backbones is None else backbones:
        case = _case(reducer, backbone)
        if isinstance(case, str):
            refused.append(case)
            continue
        if isinstance(case, Outcome):
            outcomes.append(case)
            progress(case)
            continue
        for check in chosen:
            if not (check.once and check.name in done):
                done.add(check.name)
                outcomes.append(run_check(check, case))
                progress(outcomes[-1])
    if not outcomes:
        text = _report(
            ATTACHES, "a reducer runs on some backbone", reducer, "all", "one that accepts it", "; ".join(refused)
        )
        outcomes.append(Outcome(ATTACHES, "all", _spec(reducer), "failed", text))
    return tuple(outcomes)


def run_check(check: Check, case: Case) -> Outcome:
    """One clause on one case."""
    spec = case.reducer.spec
    reason = check.unless(case.reducer.capabilities)
    if reason is not None:
        return Outcome(check.name, case.backbone, spec, "skipped", reason)
    try:
        told = check(case)
    except NotApplicable as inapplicable:
        return Outcome(check.name, case.backbone, spec, "skipped", str(inapplicable))
    except Exception as error:
        expected, got = _expectation(error)
        text = _report(check.name, check.clause, case.reducer, case.backbone, expected, got)
        return Outcome(check.name, case.backbone, spec, "failed", text)
    return Outcome(check.name, case.backbone, spec, "passed", told or "")


def parametrize_with_checks(
    reducers: Sequence[Subject],
    backbones: Sequence[Backbone] | None = None,
    expected_failures: Mapping[str, Mapping[str, str]] | None = None,
) -> Any:
    """A pytest decorator: one test for each reducer, backbone and check that applies, as argument ``contract``.

    ::

        @parametrize_with_checks([Mine, Other(keep=0.5)])
        def test_contract(contract):
            contract()

    Args:
        expected_failures: spec of the reducer -> check -> reason. Strict: a check that passes fails the test, until
            its entry is taken out.
    Raises:
        ValueError: an entry that names no reducer given, or no check.
    """
    import pytest

    expected = dict(expected_failures or {})
    names = {check.name for check in CHECKS}
    specs = [_spec(reducer) for reducer in reducers]
    for spec, entries in expected.items():
        if spec not in specs or entries.keys() - names:
            wrong = spec if spec not in specs else ", ".join(sorted(entries.keys() - names))
            raise ValueError(f"expected_failures: {wrong} is no reducer given, or no check")
    rows = []
    for reducer, spec in zip(reducers, specs, strict=True):
        done: set[str] = set()
        for backbone in default_backbones() if backbones is None else backbones:
            for check in CHECKS:
                if check.once and check.name in done:
                    continue
                done.add(check.name)
                reason = expected.get(spec, {}).get(check.name)
                marks = [pytest.mark.xfail(reason=reason, strict=True, raises=CheckFailed)] if reason else []
                row = Bound(check, reducer, backbone)
                rows.append(pytest.param(row, marks=marks, id=f"{spec}-{backbone.name}-{check.name}"))
    return pytest.mark.parametrize("contract", rows)


class Bound:
    """A check with the reducer and the backbone that it will run on, for pytest."""

    def __init__(self, check: Check, reducer: Subject, backbone: Backbone) -> None:
        self.check = check
        self.reducer = reducer
        self.backbone = backbone

    def __call__(self) -> Outcome:
        """Run it. Raises: CheckFailed; pytest's skip with the reason where it does not apply."""
        import pytest

        case = _case(self.reducer, self.backbone)
        outcome = run_check(self.check, case) if isinstance(case, Case) else case
        if isinstance(outcome, str):
            pytest.skip(outcome)
        if outcome.status == "skipped":
            pytest.skip(outcome.detail)
        if outcome.status == "failed":
            raise CheckFailed(outcome.detail, (outcome,))
        return outcome


@lru_cache(maxsize=64)
def _case(reducer: Subject, backbone: Backbone) -> Case | Outcome | str:
    """The case; the reason why the backbone refuses it; or the failure to make it."""
    try:
        return Case(reducer, backbone)
    except NotApplicable as inapplicable:
        return str(inapplicable)
    except Exception as error:
        name = declared.check_declared_needs.name if isinstance(error, UndeclaredNeed) else ATTACHES
        expected, got = _expectation(error)
        clause = "a reducer attaches, and reads only what it declares"
        text = _report(name, clause, reducer, backbone.name, expected, got)
        return Outcome(name, backbone.name, _spec(reducer), "failed", text)


def _expectation(error: Exception) -> tuple[str, str]:
    if isinstance(error, Broken):
        return error.expected, error.got
    if isinstance(error, UndeclaredNeed):
        return "every statistic that is read to be declared in Capabilities.needs", str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
    return "no exception", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def _report(check: str, clause: str, reducer: Subject, backbone: str, expected: str, got: str) -> str:
    call = _call(reducer)
    return (
        f"{check}: {clause}\n"
        f"  reducer    {_spec(reducer)} on the {backbone} backbone\n"
        f"  expected   {expected}\n"
        f"  got        {got}\n"
        f"  reproduce  tokred.testing.check_reducer({call}, only={check!r})"
    )


def _call(reducer: Subject) -> str:
    """The constructor call that makes the reducer again."""
    if isinstance(reducer, type):
        return reducer.__name__
    parameters = inspect.signature(type(reducer).__init__).parameters
    changed = {k: v for k, v in reducer.config.items() if k not in parameters or v != parameters[k].default}
    settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    return f"{type(reducer).__name__}({settings})"


def _spec(reducer: Subject) -> str:
    if isinstance(reducer, TokenReducer):
        return reducer.spec
    return reducer.method or reducer.__name__ if isinstance(reducer, type) else construct(reducer).spec
