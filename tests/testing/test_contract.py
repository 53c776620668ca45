"""Every registered method on every backbone keeps every clause; and the machinery that says so is not blind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tokred
from tokred.methods import EViT, FewerFrames, TopK
from tokred.registry import build
from tokred.testing import CHECKS, CheckFailed, check_reducer, default_backbones, parametrize_with_checks, run_checks
from tokred.testing.contract import Bound, run_check

WRONG = Path(__file__).parent / "wrong.py"
VIDEO, IMAGE, *_ = default_backbones()

# Methods of plug-ins that happen to be installed are theirs to check.
BUILT_IN = [cls for cls in tokred.list_methods().values() if cls.__module__.startswith("tokred.methods")]

# spec -> check -> why the clause cannot be kept. Strict: an entry for a check that passes fails.
EXPECTED_FAILURES: dict[str, dict[str, str]] = {}


@parametrize_with_checks(BUILT_IN, expected_failures=EXPECTED_FAILURES)
def test_every_method_keeps_the_contract(contract: Bound) -> None:
    outcome = contract()
    if outcome.check == "check_compile":
        assert outcome.detail == "in one graph"


def test_a_class_of_twenty_lines_keeps_the_contract() -> None:
    reducer = build(f"{WRONG}:Good")
    outcomes = check_reducer(reducer)
    assert {outcome.status for outcome in outcomes} <= {"passed", "skipped"}
    assert {outcome.backbone for outcome in outcomes} == {"video", "image", "windows"}
    run = [outcome.check for outcome in outcomes]
    assert set(run) == {check.name for check in CHECKS}
    assert run.count("check_compile") == 1, "slow checks run on one backbone"


def test_a_failure_names_the_clause_what_was_expected_what_came_and_how_to_see_it_again() -> None:
    with pytest.raises(CheckFailed, match="breaks 1 clause") as caught:
        check_reducer(build(f"{WRONG}:OneTooMany:keep=0.25"), [VIDEO], only="check_token_count_is_scheduled")
    lines = str(caught.value).splitlines()
    spec = f"{WRONG}:OneTooMany:keep=0.25"
    assert lines[0] == f"{spec} breaks 1 clause of the contract"
    assert lines[2].startswith("check_token_count_is_scheduled: each step leaves the tokens that its schedule promises")
    assert lines[3:6] == [
        f"  reducer    {spec} on the video backbone",
        "  expected   24 patch tokens after the step at block 1 on 96 (TokenReducer.promise: unless overridden, what "
        "the schedule says)",
        "  got        25",
    ]
    call = "check_reducer(OneTooMany(keep=0.25), only='check_token_count_is_scheduled')"
    assert lines[6] == f"  reproduce  tokred.testing.{call}"
    assert [outcome.status for outcome in caught.value.outcomes] == ["failed"]


def test_a_method_that_no_backbone_takes_fails_with_their_reasons() -> None:
    with pytest.raises(CheckFailed, match=r"(?s)check_attaches.*image refuses fewer_frames.*needs a video"):
        check_reducer(FewerFrames, [IMAGE])


def test_a_class_without_defaults_fails_with_what_to_do() -> None:
    needy = type(build(f"{WRONG}:NeedsASetting:keep=0.5"))
    (outcome,) = run_checks(needy, [VIDEO])
    assert (outcome.check, outcome.status) == ("check_attaches", "failed")
    assert "or an instance to check" in outcome.detail


def test_an_exception_in_a_check_is_a_failure_with_the_place() -> None:
    (outcome,) = run_checks(build(f"{WRONG}:OnlyFloat32"), [VIDEO], only="check_dtypes")
    assert outcome.status == "failed"
    assert "RuntimeError" in outcome.detail
    assert "wrong.py:" in outcome.detail


def test_a_check_that_does_not_exist_is_refused_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"only = 'check_nothing' is not one of check_declared_needs, "):
        run_checks(TopK, only="check_nothing")


def test_skips_carry_a_reason() -> None:
    outcomes = run_checks(EViT(tokens=30, at=(1,)), [VIDEO], only="check_identity_at_zero")
    assert [(o.status, o.detail) for o in outcomes] == [("skipped", "it declares no strength that could be zero")]


def test_capabilities_select_the_checks() -> None:
    from dataclasses import replace

    from tokred.testing.case import Case

    case = Case(TopK(keep=0.5), VIDEO)
    case.reducer.capabilities = replace(case.reducer.capabilities, stateful=True, identity_at_zero="it replaces layers")
    found = {check.name: run_check(check, case) for check in CHECKS if check.unless(case.reducer.capabilities)}
    assert found["check_no_state_between_forwards"].detail == "it declares that it keeps state"
    assert found["check_identity_at_zero"].detail == "it declares why not: it replaces layers"


def test_expected_failures_are_strict_and_must_name_something() -> None:
    mark = parametrize_with_checks([TopK], [VIDEO], {"topk": {"check_restore": "a reason"}})
    row = next(row for row in mark.args[1] if row.id == "topk-video-check_restore")
    assert row.marks[0].kwargs == {"reason": "a reason", "strict": True, "raises": CheckFailed}
    with pytest.raises(ValueError, match="expected_failures: check_nothing is no reducer given, or no check"):
        parametrize_with_checks([TopK], [VIDEO], {"topk": {"check_nothing": "a reason"}})
    with pytest.raises(ValueError, match="expected_failures: tome is no reducer given, or no check"):
        parametrize_with_checks([TopK], [VIDEO], {"tome": {}})


def test_check_reducer_needs_neither_pytest_nor_hypothesis() -> None:
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "import tokred\n"
        "from tokred.methods import TopK\n"
        "outcomes = tokred.testing.check_reducer(TopK(keep=0.5), only='check_restore')\n"
        "print([o.status for o in outcomes])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == "['passed', 'passed', 'passed']", done.stderr
