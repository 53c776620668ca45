from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("name", "check", "says"),
    [
        ("ReadsInSecret", "check_declared_needs", "key is not declared"),
        ("AssumesFrames", "check_declared_needs", 'declare that it needs "frames"'),
        ("LearnsInSecret", "check_declarations", "no parameters, as trainable=False declares"),
        ("Sleeps", "check_declarations", "a strength, or defaults that reduce"),
    ],
)
def test_a_false_declaration_is_caught(caught: Callable[..., str], name: str, check: str, says: str) -> None:
    assert says in caught(name, check)
