"""Progress: a bar where somebody looks, one line per phase in a log."""

from __future__ import annotations

import io

from rich.console import Console

from tokred.cli.progress import RichProgress


def shown(terminal: bool) -> str:
    stream = io.StringIO()
    progress = RichProgress(Console(file=stream, force_terminal=terminal, width=80, color_system=None))
    with progress.phase("rows", 3) as advance:
        advance(1)
        advance(2)
    progress.note("a very long path " + "x" * 100)
    return stream.getvalue()


def test_a_log_gets_one_line_per_phase_and_notes_unbroken() -> None:
    assert shown(terminal=False) == "rows ...\na very long path " + "x" * 100 + "\n"


def test_a_terminal_gets_a_bar_that_counts_to_the_end() -> None:
    assert "3/3" in shown(terminal=True)
