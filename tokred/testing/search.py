"""Look for examples that break a clause, and make the first one found as small as it gets. Needs hypothesis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy

from tokred.probe import UndeclaredNeed
from tokred.reducer import TokenReducer
from tokred.testing.case import Case, at_share
from tokred.testing.check import Check
from tokred.testing.example import StepExample
from tokred.testing.failures import NotApplicable, Outcome
from tokred.testing.fixed import look_at_fixed
from tokred.testing.profiles import Profile
from tokred.testing.report import expectation, report, reproduce
from tokred.testing.shapes import Backbone
from tokred.testing.strategies import backbones, steps
from tokred.testing.trial import Refused, Trial

STEPS = "steps"
SHAPES = "shapes"
"""What stands for the backbone in the outcomes of drawn steps and of drawn backbones."""

# A plain and a hierarchical host: where all settings that are tried are refused, none of that kind is drawn.
TRIED = tuple(
    StepExample(grid=(4, 4, 4), batch=1, prefix=prefix, dim=8, windows=windows, strength=strength, step=None)
    for windows, prefix in ((False, 0), (False, 1), (True, 0))
    for strength in (8, 4, None)
)


class Found(NamedTuple):
    """The smallest example found that breaks a clause."""

    check: Check
    trial: Trial
    error: Exception


def trial_of(reducer: TokenReducer, example: StepExample) -> Trial:
    """The reducer on an example, at the strength that it asks for.

    Raises:
        Refused: the reducer does not take such tokens, or does nothing there.
    """
    geometry = example.geometry
    try:
        weakest = at_share(reducer, geometry, 0.0)
        chosen = None if example.strength is None else at_share(reducer, geometry, example.strength / 8)
    except ValueError as error:
        raise Refused(str(error)) from error
    return Trial(reducer if chosen is None else chosen, example, weakest)


def search_steps(reducer: TokenReducer, checks: Sequence[Check], profile: Profile) -> tuple[Outcome, ...]:
    """Every clause that can be seen on one step, on drawn examples and on the fixed ones of unusual sizes.

    Args:
        reducer: at any strength; the strength is drawn too where it declares one.
        checks: those without ``drawn`` are left out.
    Returns:
        One outcome per check, "steps" as its backbone.
    """
    capabilities = reducer.capabilities
    reasons = {check: check.unless(capabilities) for check in checks if check.drawn is not None}
    looking = [check for check, reason in reasons.items() if reason is None]
    found: dict[Check, Outcome] = {}
    for check, reason in reasons.items():
        if reason is not None:
            found[check] = Outcome(check.name, STEPS, reducer.spec, "skipped", reason)
    hosts = _hosts(reducer)
    if not hosts:
        for check in looking:
            found[check] = Outcome(check.name, STEPS, reducer.spec, "skipped", "it takes no step on tokens")
        looking = []
    while looking:
        seen, failure = _hunt(reducer, looking, hosts, profile)
        if failure is None:
            # Behind the drawn ones: of what fails on both, the example that was made small is shown.
            for check, trial, error in look_at_fixed(lambda example: trial_of(reducer, example), looking, hosts):
                broken = _broken(check, error, looking)
                found[broken] = _failed(Found(broken, trial, error))
            told = f"{seen} drawn steps" if seen else ""
            for check in [check for check in looking if check not in found]:
                found[check] = Outcome(check.name, STEPS, reducer.spec, "passed" if seen else "skipped", told)
            break
        looking.remove(failure.check)
        found[failure.check] = _failed(failure)
    return tuple(found[check] for check in reasons)


def look_at(reducer: TokenReducer, example: StepExample, checks: Sequence[Check]) -> tuple[Outcome, ...]:
    """Clauses on one example.

    Raises:
        Refused: the reducer does not take such tokens.
    """
    trial = trial_of(reducer, example)
    outcomes = []
    for check in checks:
        reason = check.unless(reducer.capabilities)
        if reason is not None:
            outcomes.append(Outcome(check.name, STEPS, trial.reducer.spec, "skipped", reason))
            continue
        try:
            look(check, trial)
        except Refused:
            raise
        except Exception as error:
            outcomes.append(_failed(Found(check, trial, error)))
        else:
            outcomes.append(Outcome(check.name, STEPS, trial.reducer.spec, "passed"))
    return tuple(outcomes)


def search_backbones(
    reducer: TokenReducer, checks: Sequence[Check], profile: Profile, run_check: Callable[[Check, Case], Outcome]
) -> tuple[Outcome, ...]:
    """All clauses but the slow ones on backbones of random small shape.

    Returns:
        One outcome per check, with the backbone on which it failed; "shapes" where it never did.
    """
    fast = [check for check in checks if not check.once]
    found: dict[Check, Outcome] = {}
    seen = 0

    def test(backbone: Backbone) -> None:
        nonlocal seen
        try:
            case = Case(reducer, backbone)
        except NotApplicable:
            hypothesis.reject()
        seen += 1
        for check in fast:
            outcome = run_check(check, case)
            if outcome.status == "failed":
                found.setdefault(check, outcome)

    # Not made smaller: a model is built for each, and the sizes are small already.
    try:
        draw(backbones(), test, profile.backbones, profile.seed, shrink=False)
    except Unsatisfiable:
        return ()
    passed = {c: Outcome(c.name, SHAPES, reducer.spec, "passed", f"{seen} drawn backbones") for c in fast}
    return tuple(found.get(check, passed[check]) for check in fast) if seen else ()


def look(check: Check, trial: Trial) -> None:
    """One clause on one example. Raises: whatever is wrong."""
    assert check.drawn is not None
    check.drawn(trial)


def draw(
    strategy: SearchStrategy[Any], test: Callable[[Any], None], count: int, seed: int, shrink: bool = True
) -> None:
    """Run a test on examples, and once more on the smallest one that fails. Raises: what the test raises there."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
    )
    @given(strategy)
    def run(example: Any) -> None:
        test(example)

    run()


def _hunt(
    reducer: TokenReducer, checks: list[Check], hosts: tuple[bool, ...], profile: Profile
) -> tuple[int, Found | None]:
    """Examples seen until a clause broke, and that one; all clauses look at each example."""
    seen = 0
    found: Found | None = None

    def test(example: StepExample) -> None:
        nonlocal seen, found
        try:
            trial = trial_of(reducer, example)
            # Once a clause has failed, only that one is followed while the example shrinks.
            for check in checks if found is None else [found.check]:
                try:
                    look(check, trial)
                except Refused:
                    raise
                except Exception as error:
                    found = Found(_broken(check, error, checks), trial, error)
                    raise
        except Refused:
            hypothesis.reject()
        seen += 1

    strategy = steps(windows=None if len(hosts) == 2 else hosts[0], strength=bool(reducer.strength))
    try:
        draw(strategy, test, profile.steps, profile.seed)
    except Unsatisfiable:
        return 0, None
    except Exception:
        if found is None:
            raise
    return seen, found


def _broken(check: Check, error: Exception, checks: list[Check]) -> Check:
    """The clause that an exception breaks: reading what is not declared is one of its own."""
    named = "check_declared_needs" if isinstance(error, UndeclaredNeed) else check.name
    return next((other for other in checks if other.name == named), check)


def _failed(failure: Found) -> Outcome:
    check, trial, error = failure
    example = dataclasses.replace(trial.example, strength=None)
    expected, got = expectation(error)
    again = reproduce(trial.reducer, check.name, example)
    text = report(check.name, check.clause, trial.reducer, f"on {example!r}", expected, got, again)
    return Outcome(check.name, STEPS, trial.reducer.spec, "failed", text)


def _hosts(reducer: TokenReducer) -> tuple[bool, ...]:
    """Of plain (False) and hierarchical (True) hosts, those on which the reducer takes a step."""
    kinds: set[bool] = set()
    for example in TRIED:
        try:
            trial_of(reducer, example).run()
        except Refused:
            continue
        except Exception:
            pass  # broken, which a clause will say
        kinds.add(example.windows)
    return tuple(sorted(kinds))
