"""Tables, pictures and pages of a run, made from its results.json. Heavy libraries are imported when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokred.report.style import Style, look, style_of, styles_of
from tokred.report.sweep_table import print_sweep
from tokred.report.table import csv, frame, markdown
from tokred.report.terminal import print_table, terminal
from tokred.report.write import render, write_run

__all__ = [
    "Style",
    "csv",
    "frame",
    "look",
    "markdown",
    "print_run",
    "print_sweep",
    "print_table",
    "render",
    "style_of",
    "styles_of",
    "terminal",
    "write_run",
]


def print_run(results: Mapping[str, Any]) -> None:
    """Print the table of a run, whatever kind it is of.

    Args:
        results: as read from results.json or sweep.json.
    """
    if results.get("kind") == "sweep":
        print_sweep(results)
    else:
        print_table(results)
