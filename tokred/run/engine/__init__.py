"""Engines: what computes the tasks of a run, in this process, in several, or on a cluster."""

from __future__ import annotations

from tokred.run.engine.base import ENGINES, Engine, EngineError, Outcome, make_engine
from tokred.run.engine.parts import InParts

__all__ = ["ENGINES", "Engine", "EngineError", "InParts", "Outcome", "make_engine"]
