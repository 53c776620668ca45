"""Progress on a terminal; plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


class RichProgress:
    """Bars on a terminal, one line per phase when the output goes to a file."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """A phase of ``total`` units; yields the callable that advances it."""
        if not self.console.is_terminal:
            self.console.print(f"{name} ...", highlight=False)
            yield lambda done: None
            return
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda done: bar.advance(task, done)

    def note(self, text: str) -> None:
        """One line for the user."""
        self.console.print(text, highlight=False, soft_wrap=True)
