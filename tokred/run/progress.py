"""How a long run tells what it does, without knowing of terminals."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Progress(Protocol):
    """Where a run says what it does."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A phase of ``total`` units; the callable advances it."""
        ...

    def note(self, text: str) -> None:
        """One line for the user."""
        ...


class Silent:
    """A progress that says nothing."""

    def phase(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        return nullcontext(lambda done: None)

    def note(self, text: str) -> None:
        return
