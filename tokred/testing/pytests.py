"""The contract as pytest tests: one for each reducer, backbone and check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokred.testing.case import Case, Subject
from tokred.testing.check import Check
from tokred.testing.contract import CHECKS, case_of, drawn_outcomes, run_check
from tokred.testing.failures import CheckFailed, Outcome
from tokred.testing.hosts import Backbone, default_backbones
from tokred.testing.profiles import Profile, profile_of
from tokred.testing.report import spec_of


def parametrize_with_checks(
    reducers: Sequence[Subject],
    backbones: Sequence[Backbone] | None = None,
    expected_failures: Mapping[str, Mapping[str, str]] | None = None,
    *,
    profile: str | None = None,
) -> Any:
    """A pytest decorator: one test for each reducer, backbone and check, and one for drawn steps, as argument
    ``contract``.

    ::

        @parametrize_with_checks([Mine, Other(keep=0.5)])
        def test_contract(contract):
            contract()

    Args:
        expected_failures: spec of the reducer -> check -> reason. Strict: a check that passes fails the test, until
            its entry is taken out.
        profile: how many steps are drawn, see ``check_reducer``.
    Raises:
        ValueError: an entry that names no reducer given, or no check.
    """
    import pytest

    expected = dict(expected_failures or {})
    names = {check.name for check in CHECKS}
    specs = [spec_of(reducer) for reducer in reducers]
    budget = profile_of(profile, deep=False)
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
                bound = Bound(check, reducer, backbone)
                rows.append(pytest.param(bound, marks=_marks(reason), id=f"{spec}-{backbone.name}-{check.name}"))
        drawn = [check for check in CHECKS if check.drawn]
        others = [check for check in drawn if check.name not in expected.get(spec, {})]
        rows.append(pytest.param(Drawn(others, reducer, budget), id=f"{spec}-drawn"))
        for check in drawn:
            if check not in others:
                marks = _marks(expected[spec][check.name])
                rows.append(pytest.param(Drawn([check], reducer, budget), marks=marks, id=f"{spec}-drawn-{check.name}"))
    return pytest.mark.parametrize("contract", rows)


def _marks(reason: str | None) -> list[Any]:
    import pytest

    return [pytest.mark.xfail(reason=reason, strict=True, raises=CheckFailed)] if reason else []


class Drawn:
    """Checks with the reducer that they will run on, on drawn examples, for pytest."""

    def __init__(self, checks: Sequence[Check], reducer: Subject, profile: Profile) -> None:
        self.checks = checks
        self.reducer = reducer
        self.profile = profile

    def __call__(self) -> Outcome:
        """Run them. Raises: CheckFailed; pytest's skip with the reason where none applies."""
        import pytest

        outcomes = drawn_outcomes(self.reducer, self.checks, self.profile)
        failed = tuple(outcome for outcome in outcomes if outcome.status == "failed")
        if failed:
            raise CheckFailed("\n\n".join(outcome.detail for outcome in failed), failed)
        passed = [outcome for outcome in outcomes if outcome.status == "passed"]
        if not passed:
            pytest.skip(outcomes[0].detail if outcomes else "there is nothing to draw for it")
        return passed[0]


class Bound:
    """A check with the reducer and the backbone that it will run on, for pytest."""

    def __init__(self, check: Check, reducer: Subject, backbone: Backbone) -> None:
        self.check = check
        self.reducer = reducer
        self.backbone = backbone

    def __call__(self) -> Outcome:
        """Run it. Raises: CheckFailed; pytest's skip with the reason where it does not apply."""
        import pytest

        case = case_of(self.reducer, self.backbone)
        outcome = run_check(self.check, case) if isinstance(case, Case) else case
        if isinstance(outcome, str):
            pytest.skip(outcome)
        if outcome.status == "skipped":
            pytest.skip(outcome.detail)
        if outcome.status == "failed":
            raise CheckFailed(outcome.detail, (outcome,))
        return outcome
