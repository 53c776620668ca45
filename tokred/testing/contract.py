"""The contract of every reducer: all clauses, run from a prompt, a command or pytest."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache

from tokred.probe import UndeclaredNeed
from tokred.reducer import TokenReducer
from tokred.testing import (
    costs,
    counts,
    declared,
    devices,
    export,
    gradients,
    graphs,
    identity,
    memory,
    numerics,
    pooling,
    precision,
    programs,
    state,
    tokens,
    values,
)
from tokred.testing.case import Case, Subject, construct
from tokred.testing.check import Check
from tokred.testing.example import StepExample
from tokred.testing.failures import CheckFailed, NotApplicable, Outcome
from tokred.testing.hosts import Backbone, default_backbones
from tokred.testing.process import expect_same_elsewhere
from tokred.testing.profiles import Profile, profile_of
from tokred.testing.report import expectation, report, reproduce, spec_of

CHECKS: tuple[Check, ...] = (
    declared.check_declared_needs,
    declared.check_declarations,
    state.check_tokens_untouched,
    identity.check_identity_at_zero,
    identity.check_blocks_taken_apart,
    identity.check_fused_equals_eager,
    pooling.check_pooling,
    identity.check_neutral_composition,
    identity.check_detach_leaves_nothing,
    counts.check_token_count_is_scheduled,
    counts.check_strength_is_monotone,
    counts.check_impossible_is_refused,
    counts.check_composition,
    values.check_values,
    tokens.check_mass_conserved,
    tokens.check_order_and_prefix_kept,
    tokens.check_restore,
    numerics.check_batch_independence,
    gradients.check_gradients,
    numerics.check_dtypes,
    numerics.check_degenerate_inputs,
    precision.check_decides_in_float32,
    precision.check_channel_order,
    state.check_determinism,
    state.check_no_global_state,
    state.check_no_state_between_forwards,
    state.check_reset_forgets,
    state.check_threads,
    memory.check_memory,
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
    reducer: Subject,
    backbones: Sequence[Backbone] | None = None,
    only: str | None = None,
    *,
    deep: bool = False,
    profile: str | None = None,
) -> tuple[Outcome, ...]:
    """Check that a reducer keeps the contract: on small models, and on drawn examples of single steps.

    Args:
        reducer: a class, checked with its defaults (at a middle strength if the defaults do nothing), or an instance.
        backbones: models to run on; default: a small video ViT, a small timm ViT with prefix tokens, a small VideoSwin.
        only: the name of one check.
        deep: the profile "deep"; profile: "default" (40 drawn steps), "ci" (300, and drawn backbones), "deep" (10,000).
            Drawing needs hypothesis; without it those outcomes are skipped.
    Returns:
        What passed, and what was skipped for which reason.
    Raises:
        CheckFailed: the clauses that are broken: what was expected, what came, how to see it again.
    """
    return _passed(run_checks(reducer, backbones, only, profile=profile_of(profile, deep)))


def check_step(reducer: Subject, example: StepExample, only: str | None = None) -> tuple[Outcome, ...]:
    """Look at one example of a step again, as a report of ``check_reducer`` says.

    Args:
        only: the name of one check.
    Raises:
        CheckFailed: as ``check_reducer``. Refused: the reducer does not take such tokens.
    """
    from tokred.testing.search import look_at

    return _passed(look_at(construct(reducer), example, [check for check in _chosen(only) if check.drawn]))


def _passed(outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    failed = tuple(outcome for outcome in outcomes if outcome.status == "failed")
    if failed:
        clauses = len({outcome.check for outcome in failed})
        head = f"{failed[0].reducer} breaks {clauses} clause{'s' if clauses > 1 else ''} of the contract"
        raise CheckFailed("\n\n".join([head, *(outcome.detail for outcome in failed)]), failed)
    return outcomes


def _chosen(only: str | None) -> tuple[Check, ...]:
    chosen = CHECKS if only is None else tuple(check for check in CHECKS if check.name == only)
    if not chosen and only != ATTACHES:
        raise ValueError(f"only = {only!r} is not one of {', '.join(check.name for check in CHECKS)}")
    return chosen


def run_checks(
    reducer: Subject,
    backbones: Sequence[Backbone] | None = None,
    only: str | None = None,
    progress: Callable[[Outcome], None] = lambda _: None,
    profile: Profile | None = None,
) -> tuple[Outcome, ...]:
    """All outcomes of ``check_reducer``, failures included.

    Args:
        progress: called with each outcome as it comes; profile: what is drawn, None = nothing.
    Raises:
        ValueError: ``only`` is no check.
    """
    chosen = _chosen(only)
    outcomes: list[Outcome] = []
    refused: list[str] = []
    done: set[str] = set()
    for backbone in default_backbones() if backbones is None else backbones:
        case = case_of(reducer, backbone)
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
        again, got = reproduce(reducer, ATTACHES), "; ".join(refused)
        text = report(
            ATTACHES, "a reducer runs on some backbone", reducer, "on all backbones", "one that accepts it", got, again
        )
        outcomes.append(Outcome(ATTACHES, "all", spec_of(reducer), "failed", text))
    elif profile is not None and not any(outcome.check == ATTACHES for outcome in outcomes):
        for outcome in drawn_outcomes(reducer, chosen, profile):
            outcomes.append(outcome)
            progress(outcome)
    return tuple(outcomes)


def drawn_outcomes(reducer: Subject, checks: Sequence[Check], profile: Profile) -> tuple[Outcome, ...]:
    """Checks on what hypothesis draws: steps, and the backbones that the profile asks for."""
    if importlib.util.find_spec("hypothesis") is None:
        why = "hypothesis, which draws the examples, is not installed"
        return tuple(Outcome(check.name, "steps", spec_of(reducer), "skipped", why) for check in checks if check.drawn)
    from tokred.testing.search import search_backbones, search_steps

    given = construct(reducer)
    found = search_steps(given, checks, profile)
    if profile.backbones:
        found += search_backbones(given, checks, profile, run_check)
    if profile.another and state.check_determinism in checks:
        found += (_elsewhere(given),)
    return found


def _elsewhere(reducer: TokenReducer) -> Outcome:
    """Determinism once more, from one process to the next."""
    check, where = state.check_determinism, "process"
    try:
        expect_same_elsewhere(reducer)
    except NotApplicable as inapplicable:
        return Outcome(check.name, where, reducer.spec, "skipped", str(inapplicable))
    except Exception as error:
        expected, got = expectation(error)
        again = reproduce(reducer, check.name).removesuffix(")") + ", profile='ci')"
        text = report(check.name, check.clause, reducer, "in another process", expected, got, again)
        return Outcome(check.name, where, reducer.spec, "failed", text)
    return Outcome(check.name, where, reducer.spec, "passed")


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
        expected, got = expectation(error)
        where, again = f"on the {case.backbone} backbone", reproduce(case.reducer, check.name, backbone=case.backbone)
        text = report(check.name, check.clause, case.reducer, where, expected, got, again)
        return Outcome(check.name, case.backbone, spec, "failed", text)
    return Outcome(check.name, case.backbone, spec, "passed", told or "")


@lru_cache(maxsize=64)
def case_of(reducer: Subject, backbone: Backbone) -> Case | Outcome | str:
    """The case; the reason why the backbone refuses it; or the failure to make it."""
    try:
        return Case(reducer, backbone)
    except NotApplicable as inapplicable:
        return str(inapplicable)
    except Exception as error:
        name = declared.check_declared_needs.name if isinstance(error, UndeclaredNeed) else ATTACHES
        expected, got = expectation(error)
        clause = "a reducer attaches, and reads only what it declares"
        where, again = f"on the {backbone.name} backbone", reproduce(reducer, name, backbone=backbone.name)
        text = report(name, clause, reducer, where, expected, got, again)
        return Outcome(name, backbone.name, spec_of(reducer), "failed", text)
