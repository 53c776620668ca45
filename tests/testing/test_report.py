from __future__ import annotations

import pytest

import tokred
from tokred.methods import ToMe
from tokred.probe import UndeclaredNeed
from tokred.testing import StepExample
from tokred.testing.report import expectation, reproduce


class Importable(ToMe):
    """Not registered, but in a module."""


def test_the_line_makes_the_reducer_again_whatever_it_is() -> None:
    assert (
        reproduce(ToMe, "check_x")
        == "import tokred; tokred.testing.check_reducer(tokred.build('tome'), only='check_x')"
    )
    line = reproduce(ToMe(r=3), "check_x", StepExample(batch=2))
    assert "check_step(tokred.build('tome:r=3'), tokred.testing.StepExample(batch=2), only='check_x')" in line
    both = reproduce(tokred.compose(ToMe(r=1), ToMe(r=2)), "check_x")
    assert "tokred.build('tome:r=1+tome:r=2')" in both
    own = reproduce(Importable(r=3), "check_x")
    assert own.startswith(f"import tokred; from {__name__} import Importable; ")
    assert "check_reducer(Importable(r=3), only=" in own

    drawn = reproduce(ToMe, "check_x", backbone="VideoShape(grid=(1, 2, 2), dim=8, heads=1, depth=3)")
    assert (
        "tokred.build('tome'), [tokred.testing.VideoShape(grid=(1, 2, 2), dim=8, heads=1, depth=3).backbone]" in drawn
    )
    assert "tokred.build('tome'), [mine], only=" in reproduce(ToMe, "check_x", backbone="mine")
    assert "backbone" not in reproduce(ToMe, "check_x", backbone="video")

    class Local(ToMe):
        pass

    assert reproduce(Local(r=3), "check_x") == "tokred.testing.check_reducer(Local(r=3), only='check_x')"


def test_exceptions_become_what_was_expected_and_where_it_broke() -> None:
    expected, got = expectation(UndeclaredNeed("key is not declared"))
    assert (expected, got) == (
        "every statistic that is read to be declared in Capabilities.needs",
        "key is not declared",
    )
    with pytest.raises(ZeroDivisionError, match="by zero") as caught:
        1 / 0  # noqa: B018
    expected, got = expectation(caught.value)
    assert expected == "no exception"
    assert got.startswith("ZeroDivisionError: ")
    assert "test_report.py:" in got
