"""The token counts of one forward, known before any compute."""

from __future__ import annotations

from dataclasses import dataclass

from tokred.tokens import Grid


@dataclass(frozen=True)
class StepCount:
    """One reduction step.

    Args:
        block: 0-based block; site: "before_block", "after_attention" or "after_block".
        n_in, n_out: tokens before and after, prefix included.
        macs: multiply-adds of the step per sample, as the published algorithm needs them.
        executed_macs: multiply-adds that this implementation runs.
    """

    block: int
    site: str
    n_in: int
    n_out: int
    macs: int = 0
    executed_macs: int = 0


@dataclass(frozen=True)
class Plan:
    """Token counts per block, prefix included.

    Args:
        embedded: patches that the patch embedding computes.
        attention: tokens in the attention of each block; mlp: tokens in the MLP of each block.
        final: tokens that reach the head.
        steps: the reduction steps in order.
        notes: corrections that were made, e.g. a clamped amount; shown with every result.
        queries: queries that the attention of each block runs where that differs from ``attention`` (a merged token
            asks from each of its places); empty = the same.
        reused: multiply-adds per clip of blocks that take over results of an earlier step (``TokenReducer.reused``).
        grid: patch grid of the input, needed to count a hierarchical backbone; None elsewhere.
        grids: the grid that each block of a hierarchical backbone runs on; empty = those that follow from ``grid``.
        light: multiply-adds per sample of the light paths that tokens take instead of each block's MLP; empty = none.
    """

    embedded: int
    attention: tuple[int, ...]
    mlp: tuple[int, ...]
    final: int
    steps: tuple[StepCount, ...] = ()
    notes: tuple[str, ...] = ()
    queries: tuple[int, ...] = ()
    grid: Grid | None = None
    reused: int = 0
    grids: tuple[Grid, ...] = ()
    light: tuple[int, ...] = ()
