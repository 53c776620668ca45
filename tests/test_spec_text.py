"""Reducers as text: what is written is what is read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokred.spec_text import RegistryError, parse_settings, spec_value, split_outside_brackets, split_specs

WORDS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=8)
PLAIN = st.one_of(st.integers(-9, 999), st.floats(allow_nan=False), st.booleans(), st.none(), WORDS)


@given(st.one_of(PLAIN, st.lists(PLAIN, min_size=1, max_size=3).map(tuple)))
def test_every_setting_is_read_as_it_was_written(value: Any) -> None:
    text = f"first=1,x={spec_value(value)},last=[2,3]"
    read = parse_settings(text, "spec")
    assert read == {"first": 1, "x": value, "last": (2, 3)}
    assert isinstance(read["x"], str) == isinstance(value, str)
    whole = f"a:{text}+b:{text}"
    assert split_outside_brackets(whole, "+") == [f"a:{text}", f"b:{text}"]
    assert split_specs(f"a:{text},b") == [f"a:{text}", "b"]


def test_words_and_paths_stay_as_they_are() -> None:
    assert spec_value("decreasing") == "decreasing"
    assert spec_value("runs/a-b/w.safetensors") == "runs/a-b/w.safetensors"
    assert spec_value("2") == '"2"'
    assert spec_value(("a,b", "c")) == '["a,b",c]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r=", "r has no value"),
        ("at=,r=2", "at has no value"),
        ("r=[]", "r is an empty list"),
        ("r=[,]", "r is an empty list"),
        ("keep", "'keep' is not key=value"),
        ("r=1,r=2", "r is given twice"),
    ],
)
def test_settings_that_say_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(RegistryError, match=said):
        parse_settings(text, "spec")
