"""A broken clause in words: what was expected, what came, and the line of Python that shows it again."""

from __future__ import annotations

import inspect
import traceback

from tokred.compose import Composed
from tokred.probe import UndeclaredNeed
from tokred.reducer import TokenReducer
from tokred.testing.case import Subject, construct
from tokred.testing.example import StepExample
from tokred.testing.failures import Broken
from tokred.testing.hosts import default_backbones

SHAPES = ("VideoShape(", "ImageShape(", "WindowShape(")


def report(check: str, clause: str, reducer: Subject, where: str, expected: str, got: str, again: str) -> str:
    """The text of a failure, several lines.

    Args:
        where: "on the video backbone"; again: what makes it happen again, from ``reproduce``.
    """
    return (
        f"{check}: {clause}\n"
        f"  reducer    {spec_of(reducer)} {where}\n"
        f"  expected   {expected}\n"
        f"  got        {got}\n"
        f"  reproduce  {again}"
    )


def reproduce(reducer: Subject, check: str, example: StepExample | None = None, backbone: str = "") -> str:
    """A line of Python that shows the failure again, in any folder that the reducer's file or package is found from.

    Args:
        example: of a failure on a drawn step; backbone: the name of the one it was on, "" = all.
    """
    prefix, made = _made(reducer)
    if example is None:
        if backbone.startswith(SHAPES):
            made += f", [tokred.testing.{backbone}.backbone]"
        elif backbone and backbone not in [known.name for known in default_backbones()]:
            made += f", [{backbone}]"  # somebody's own, who has it by that name
        return f"{prefix}tokred.testing.check_reducer({made}, only={check!r})"
    return f"{prefix}tokred.testing.check_step({made}, tokred.testing.{example!r}, only={check!r})"


def expectation(error: Exception) -> tuple[str, str]:
    """What was expected and what came, of any exception in a check."""
    if isinstance(error, Broken):
        return error.expected, error.got
    if isinstance(error, UndeclaredNeed):
        return "every statistic that is read to be declared in Capabilities.needs", str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = next((f for f in reversed(frames) if "site-packages" not in f.filename), frames[-1])
    return "no exception", f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"


def spec_of(reducer: Subject) -> str:
    """The name of a class, or an instance with its settings."""
    if isinstance(reducer, TokenReducer):
        return reducer.spec
    return reducer.method or reducer.__name__ if isinstance(reducer, type) else construct(reducer).spec


def _made(reducer: Subject) -> tuple[str, str]:
    """What has to be imported, and the expression that is the reducer."""
    kind = reducer if isinstance(reducer, type) else type(reducer)
    if isinstance(reducer, Composed) or kind.method or kind.origin:
        name = (kind.origin or kind.method) if isinstance(reducer, type) else reducer.spec
        return "import tokred; ", f"tokred.build({name!r})"
    call = kind.__name__ if isinstance(reducer, type) else _call(reducer)
    if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
        return "", call
    return f"import tokred; from {kind.__module__} import {kind.__name__}; ", call


def _call(reducer: TokenReducer) -> str:
    """The constructor call that makes the reducer again."""
    parameters = inspect.signature(type(reducer).__init__).parameters
    changed = {k: v for k, v in reducer.config.items() if k not in parameters or v != parameters[k].default}
    settings = ", ".join(f"{name}={value!r}" for name, value in changed.items())
    return f"{type(reducer).__name__}({settings})"
