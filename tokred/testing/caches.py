"""Tables that a reducer keeps at module level: whether one made for a grid is taken for another of as many tokens."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tokred.compose import parts_of
from tokred.reducer import TokenReducer
from tokred.testing.case import Case, same_decisions
from tokred.testing.example import StepExample
from tokred.testing.failures import expect
from tokred.testing.trial import Refused, Trial

LYING, STANDING = (2, 5, 11), (2, 11, 5)
"""Two grids of 110 patches: a number that no small host and no drawn step has."""


def expect_grids_apart(case: Case) -> None:
    """Two sizes in turn: the second comes out as if there had been no first."""
    example = replace(StepExample.like(case.geometry), grid=STANDING)
    try:
        with forgotten(case.reducer):
            alone = Trial(copy.deepcopy(case.reducer), example).run().decisions
        with forgotten(case.reducer):
            reducer = copy.deepcopy(case.reducer)
            Trial(reducer, replace(example, grid=LYING)).run()
            behind = Trial(reducer, example).run().decisions
    except Refused:
        return
    what = f"the same decisions on a grid of {STANDING} after one of {LYING}, which has as many patches"
    expect(same_decisions(alone, behind), what, "other decisions")


@contextmanager
def forgotten(reducer: TokenReducer) -> Iterator[None]:
    """Whatever is put inside into lists, dictionaries and sets of the reducer's modules and classes is out of them
    again after it."""
    kept = [(container, copy.copy(container)) for container in _containers(reducer)]
    try:
        yield
    finally:
        for container, before in kept:
            if len(container) != len(before):
                container.clear()
                (container.extend if isinstance(container, list) else container.update)(before)


def _containers(reducer: TokenReducer) -> list[Any]:
    """Lists, dictionaries and sets at module level where the classes of a reducer are written, and on the classes."""
    found: dict[int, Any] = {}
    for part in parts_of(reducer):
        for kind in type(part).__mro__:
            if kind.__module__.split(".")[0] in ("torch", "builtins", "abc"):
                continue
            names = dict(vars(kind))
            for function in vars(kind).values():
                names.update(getattr(function, "__globals__", {}))
            for name, value in names.items():
                if isinstance(value, (list, dict, set)) and not name.startswith("__"):
                    found[id(value)] = value
    return list(found.values())
