"""Gating over time: what changed since the last frame is computed again, the rest comes out of buffers.

The parts of Eventful Transformers (Dutson, Li, Gupta, ICCV 2023, arXiv 2308.13494) and of its baseline STGT, without
any backbone: a gate decides which tokens are sent on, buffers hold what was computed before, two products are kept up
to date row by row and column by column.
"""

from __future__ import annotations

from tokred.streaming.blocks import GatedBlock, GateSettings
from tokred.streaming.gates import Gated, TokenBuffer, TokenGate
from tokred.streaming.policies import Chosen, Fraction, Policy, Threshold, TopR
from tokred.streaming.products import AttentionValue, QueryKey

__all__ = [
    "AttentionValue",
    "Chosen",
    "Fraction",
    "GateSettings",
    "Gated",
    "GatedBlock",
    "Policy",
    "QueryKey",
    "Threshold",
    "TokenBuffer",
    "TokenGate",
    "TopR",
]
