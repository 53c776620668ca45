"""Multiply-adds of a hierarchical transformer with window attention, in closed form.

Convention of the published numbers (STA, ICCV 2023, table 3): linear layers and norms run on the tokens that are left;
scores and weighted sums are paid on whole windows, padding included; patch merging runs on the whole grid. Beside it
stands what is skipped because replicas of kept tokens need no queries.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod

from tokred.backbones.geometry import Geometry
from tokred.measure.mac_report import NORM_MACS_PER_ELEMENT, MacReport
from tokred.plan import Plan
from tokred.tokens import Grid


def count_stages(geometry: Geometry, plan: Plan) -> MacReport:
    """Multiply-adds of one forward of one sample; see ``tokred.measure.flops.count``.

    Raises:
        ValueError: the plan does not say on which grid it runs.
    """
    if plan.grid is None:
        raise ValueError("the plan has no grid: a hierarchical backbone cannot be counted without it")
    g = replace(geometry, grid=plan.grid)
    blocks, skipped, merging = [], 0, 0
    for i, (attended, fed) in enumerate(zip(plan.attention, plan.mlp, strict=True)):
        number = g.stage_of(i)
        grid, stage = plan.grids[i] if plan.grids else g.stage_grid(number), g.stages[number]
        pairs, volume = window_pairs(grid, stage.window)
        hidden = g.mlp_hidden * stage.dim // g.dim
        blocks.append(
            {
                "attention": 4 * attended * stage.dim**2 + 2 * pairs * stage.dim,
                "mlp": 2 * stage.dim * hidden * fed + (plan.light[i] if plan.light else 0),
                "norm": NORM_MACS_PER_ELEMENT * stage.dim * (attended + fed),
                "reduction": sum(step.macs for step in plan.steps if step.block == i),
            }
        )
        queries = plan.queries[i] if plan.queries else attended
        if queries < grid.patches:
            skipped += 2 * stage.dim * (pairs - queries * volume)
        if g.ends_stage(i):
            merging += merging_macs(grid, stage.dim, g.stages[number + 1].dim)
    last = g.stages[-1].dim
    norm = NORM_MACS_PER_ELEMENT * g.dim if g.embed_norm else 0
    return MacReport(
        embed=plan.embedded * (prod(g.kernel) * g.in_chans * g.dim + norm),
        blocks=tuple(blocks),
        final_norm=NORM_MACS_PER_ELEMENT * last * (plan.final if g.final_norm_tokens else 1),
        head=last * g.classes * g.heads_out,
        executed_reduction=sum(step.executed_macs for step in plan.steps),
        skipped=skipped,
        merging=merging,
        notes=plan.notes,
    )


def window_pairs(grid: Grid, window: tuple[int, int, int]) -> tuple[int, int]:
    """Query-key pairs of all windows of a grid, padding included, and the places of one window."""
    sizes = [min(size, length) for size, length in zip(window, grid, strict=True)]
    padded = prod(ceil(length / size) * size for size, length in zip(sizes, grid, strict=True))
    return padded * prod(sizes), prod(sizes)


def merging_macs(grid: Grid, dim: int, merged: int) -> int:
    """Patch merging of a whole grid: the norm over 4 C and the linear layer to the next width, MAC."""
    return grid.halved.patches * 4 * dim * (merged + NORM_MACS_PER_ELEMENT)
