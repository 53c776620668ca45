"""A reducer made again of its settings, and settings that stay the caller's own."""

from __future__ import annotations

import copy
import inspect
import re
from typing import Any

from tokred.compose import parts_of
from tokred.reducer import TokenReducer
from tokred.testing.failures import expect

LISTS = re.compile(r"\b(list|List|Sequence)\[int\]")


def remade(reducer: TokenReducer) -> list[TokenReducer]:
    """The reducer constructed again; its parts, where it is a composition."""
    return [type(part)(**copy.deepcopy(part.config)) for part in parts_of(reducer)]


def expect_settings_alone(reducer: TokenReducer) -> None:
    """Construction changes nothing that it was given: the same list may make the next reducer, too."""
    for part in parts_of(reducer):
        for name, value in _as_lists(part).items():
            given = list(value)
            try:
                made = type(part)(**{**copy.deepcopy(part.config), name: given})
            except (TypeError, ValueError):
                continue  # it does not take lists there
            expect(given == value, f"{name} = {value}, a caller's list, to stay as it was given", given)
            expect(list(made.config[name]) == value, f"{name} = {value} in its settings", made.config[name])


def _as_lists(reducer: TokenReducer) -> dict[str, list[Any]]:
    """Its settings that are sequences, or may be lists of numbers, as lists."""
    parameters = inspect.signature(type(reducer).__init__).parameters
    found: dict[str, list[Any]] = {}
    for name, value in reducer.config.items():
        if isinstance(value, (tuple, list)):
            found[name] = list(value)
        elif value is None and name in parameters and LISTS.search(str(parameters[name].annotation)):
            found[name] = [0]
    return found
