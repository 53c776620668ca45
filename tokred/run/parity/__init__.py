"""Replay golden vectors of the published code: one report per file."""

from __future__ import annotations

from tokred.run.parity.replay import FileReport, find_files, replay_file, replay_files, replay_folder

__all__ = ["FileReport", "find_files", "replay_file", "replay_files", "replay_folder"]
