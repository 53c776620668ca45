"""Tables, pictures and pages of a run, made from its results.json. Heavy libraries are imported when they are used."""

from __future__ import annotations

from tokred.report.table import csv, frame, markdown
from tokred.report.terminal import print_table, terminal
from tokred.report.write import render, write_run

__all__ = ["csv", "frame", "markdown", "print_table", "render", "terminal", "write_run"]
