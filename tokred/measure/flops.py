"""Multiply-adds of a transformer in closed form, from its sizes and its token counts: nothing is run.

MAC = one multiply-add; FLOP = 2 MAC; GMAC = 1e9 MAC. The papers of this field print GMAC under the name "GFLOPs".
What counts: linear layers, convolutions, the two products of attention, and layer norm with 5 per element, as fvcore
has it. What does not: softmax, GELU, additions, gathers, sorting. Every number is for one sample.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tokred.backbones.geometry import Geometry
from tokred.measure.mac_report import BLOCK_PARTS, NORM_MACS_PER_ELEMENT, MacReport
from tokred.measure.stage_flops import count_stages
from tokred.plan import Plan
from tokred.tokens import Grid

__all__ = ["BLOCK_PARTS", "NORM_MACS_PER_ELEMENT", "MacReport", "attention_macs", "count", "unreduced_plan"]


def count(geometry: Geometry, plan: Plan) -> MacReport:
    """Multiply-adds of one forward of one sample.

    Args:
        geometry: the sizes of the backbone.
        plan: the token counts of each block.
    Returns:
        The parts and the total; equal to fvcore to the last digit where fvcore counts attention.
    Raises:
        ValueError: the plan has another number of blocks than the backbone, a count is negative, or a step lies
            outside the blocks.
    """
    _validate(geometry, plan)
    if geometry.stages:
        return count_stages(geometry, plan)
    g = geometry
    reduction = [0] * g.depth
    for step in plan.steps:
        reduction[step.block] += step.macs
    blocks = tuple(
        {
            "attention": g.steps * attention_macs(g, n_attention),
            "mlp": g.steps * (2 * g.dim * g.mlp_hidden * n_mlp + light),
            "norm": g.steps * _block_norm_macs(g, n_attention, n_mlp),
            "reduction": g.steps * steps,
        }
        for n_attention, n_mlp, light, steps in zip(
            plan.attention, plan.mlp, plan.light or (0,) * g.depth, reduction, strict=True
        )
    )
    return MacReport(
        embed=g.steps * plan.embedded * prod(g.kernel) * g.in_chans * g.dim,
        blocks=blocks,
        final_norm=g.steps * NORM_MACS_PER_ELEMENT * g.dim * (plan.final if g.final_norm_tokens else 1),
        head=g.dim * g.classes * g.heads_out + g.tail,
        executed_reduction=g.steps * sum(step.executed_macs for step in plan.steps),
        reused=plan.reused,
        notes=plan.notes,
    )


def attention_macs(geometry: Geometry, n: int) -> int:
    """qkv, q k^T, attention times v, and the projection on n tokens, MAC."""
    inner = geometry.heads * geometry.head_dim
    return 4 * n * geometry.dim * inner + 2 * n * n * inner


def unreduced_plan(geometry: Geometry, grid: Grid | None = None) -> Plan:
    """The plan of the backbone without any reducer.

    Args:
        geometry: the sizes of the backbone.
        grid: patch grid of the input; default: the native one.
    """
    grid = geometry.grid if grid is None else grid
    patches = grid.patches
    n = geometry.prefix + patches
    if geometry.stages:
        counts = tuple(
            replace(geometry, grid=grid).stage_grid(geometry.stage_of(i)).patches for i in range(geometry.depth)
        )
        return Plan(embedded=patches, attention=counts, mlp=counts, final=counts[-1], grid=grid)
    return Plan(embedded=patches, attention=(n,) * geometry.depth, mlp=(n,) * geometry.depth, final=n)


def _block_norm_macs(g: Geometry, n_attention: int, n_mlp: int) -> int:
    elements = g.dim * (n_attention + n_mlp) + g.inner_norms * g.heads * g.head_dim * n_attention
    if g.qk_norm:
        elements += 2 * g.heads * g.head_dim * n_attention
    return NORM_MACS_PER_ELEMENT * elements


def _validate(geometry: Geometry, plan: Plan) -> None:
    for name, counts in (("attention", plan.attention), ("mlp", plan.mlp)):
        if len(counts) != geometry.depth:
            raise ValueError(
                f"plan.{name} has {len(counts)} token counts, the backbone has {geometry.depth} blocks: one per block"
            )
        if any(n < 0 for n in counts):
            raise ValueError(f"plan.{name} = {list(counts)} holds a negative token count; allowed: 0 or more")
    if plan.embedded < 0 or plan.final < 0:
        raise ValueError(f"plan.embedded = {plan.embedded}, plan.final = {plan.final}; allowed: 0 or more")
    for step in plan.steps:
        if not 0 <= step.block < geometry.depth:
            raise ValueError(f"a step is in block {step.block}; allowed: 0 to {geometry.depth - 1}")
        if step.macs < 0 or step.executed_macs < 0:
            raise ValueError(f"the step in block {step.block} costs {step.macs} MAC; allowed: 0 or more")
