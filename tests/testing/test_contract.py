"""Every registered method on every backbone keeps every clause; and the machinery that says so is not blind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tokred
from tokred.methods import EViT, FewerFrames, TopK
from tokred.registry import build
from tokred.testing import (
    CHECKS,
    CheckFailed,
    Profile,
    StepExample,
    check_reducer,
    check_step,
    default_backbones,
    parametrize_with_checks,
    run_checks,
)
from tokred.testing.contract import run_check
from tokred.testing.pytests import Bound, Drawn

WRONG = Path(__file__).parent / "wrong.py"
VIDEO, IMAGE, *_ = default_backbones()

# Methods of plug-ins that happen to be installed are theirs to check.
BUILT_IN = [cls for cls in tokred.list_methods().values() if cls.__module__.startswith("tokred.methods")]

# spec -> check -> why the clause cannot be kept. Strict: an entry for a check that passes fails.
EXPECTED_FAILURES: dict[str, dict[str, str]] = {}


@parametrize_with_checks(BUILT_IN, expected_failures=EXPECTED_FAILURES)
def test_every_method_keeps_the_contract(contract: Bound | Drawn) -> None:
    outcome = contract()
    if outcome.check == "check_compile":
        assert outcome.detail == "in one graph"


def test_a_class_of_twenty_lines_keeps_the_contract() -> None:
    reducer = build(f"{WRONG}:Good")
    outcomes = check_reducer(reducer)
    assert {outcome.status for outcome in outcomes} <= {"passed", "skipped"}
    assert {outcome.backbone for outcome in outcomes} == {"video", "image", "windows", "steps"}
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
    call = f"check_reducer(tokred.build({spec!r}), only='check_token_count_is_scheduled')"
    assert lines[6] == f"  reproduce  import tokred; tokred.testing.{call}"
    assert [outcome.backbone for outcome in caught.value.outcomes] == ["video", "steps"]


def test_a_drawn_failure_comes_with_its_smallest_example_and_a_line_that_shows_it_again() -> None:
    """Not on the models, which never have three patches or fewer: only drawn steps see it."""
    with pytest.raises(CheckFailed, match="patch tokens after the step") as caught:
        check_reducer(build(f"{WRONG}:WrongOnFewTokens"), [VIDEO], only="check_token_count_is_scheduled")
    (outcome,) = caught.value.outcomes
    assert outcome.backbone == "steps"
    assert "StepExample(" in outcome.detail
    line = outcome.detail.splitlines()[-1].removeprefix("  reproduce  ")
    with pytest.raises(CheckFailed, match="got        0"):
        exec(line, {})


def test_an_example_is_looked_at_again_with_all_checks_or_one() -> None:
    outcomes = check_step(TopK(keep=0.5), StepExample(grid=(2, 2, 3), batch=2))
    assert {outcome.status for outcome in outcomes} == {"passed", "skipped"}
    (one,) = check_step(TopK, StepExample(strength=8), only="check_restore")
    assert (one.check, one.status) == ("check_restore", "passed")


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


def test_profiles_draw_more_and_a_profile_that_does_not_exist_is_refused() -> None:
    outcomes = run_checks(TopK, [VIDEO], only="check_restore", profile=Profile("few", 7, backbones=1))
    assert [(o.backbone, o.detail) for o in outcomes[1:]] == [
        ("steps", "7 drawn steps"),
        ("shapes", "1 drawn backbones"),
    ]
    with pytest.raises(ValueError, match="profile = 'depe' is not one of default, ci, deep"):
        check_reducer(TopK, profile="depe")
    with pytest.raises(ValueError, match="deep = True and profile = 'ci' contradict each other"):
        check_reducer(TopK, deep=True, profile="ci")


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
    drawn = {row.id: row for row in mark.args[1] if "drawn" in row.id}
    assert drawn.keys() == {"topk-drawn", "topk-drawn-check_restore"}
    assert drawn["topk-drawn-check_restore"].marks[0].kwargs["strict"]
    assert "check_restore" not in {check.name for check in drawn["topk-drawn"].values[0].checks}
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
        "print([o.status for o in outcomes], outcomes[-1].detail)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    expected = "['passed', 'passed', 'passed', 'skipped'] hypothesis, which draws the examples, is not installed"
    assert done.stdout.strip() == expected, done.stderr
