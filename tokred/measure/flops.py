"""Multiply-adds of a plain transformer in closed form, from its sizes and its token counts: nothing is run.

MAC = one multiply-add; FLOP = 2 MAC; GMAC = 1e9 MAC. The papers of this field print GMAC under the name "GFLOPs".
What counts: linear layers, convolutions, the two products of attention, and layer norm with 5 per element, as fvcore
has it. What does not: softmax, GELU, additions, gathers, sorting. Every number is for one sample.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from tokred.backbones.geometry import Geometry
from tokred.plan import Plan
from tokred.tokens import Grid

#: fvcore's estimate for a norm with learned scale and shift.
NORM_MACS_PER_ELEMENT = 5
BLOCK_PARTS = ("attention", "mlp", "norm", "reduction")


@dataclass(frozen=True)
class MacReport:
    """Multiply-adds of one forward of one sample.

    Args:
        embed: patch embedding.
        blocks: one mapping per block: "attention" (qkv, both products, projection), "mlp", "norm" and "reduction"
            (the steps of that block as the published algorithm needs them).
        final_norm: the last norm.
        head: the linear classifiers.
        executed_reduction: multiply-adds that this implementation runs for the reduction steps.
        notes: corrections that the plan made.
    """

    embed: int
    blocks: tuple[Mapping[str, int], ...]
    final_norm: int
    head: int
    executed_reduction: int = 0
    notes: tuple[str, ...] = ()

    @property
    def attention(self) -> int:
        """Attention of all blocks, MAC."""
        return self._part("attention")

    @property
    def mlp(self) -> int:
        """MLPs of all blocks, MAC."""
        return self._part("mlp")

    @property
    def norm(self) -> int:
        """All norms, the last one included, MAC; torch's own counter leaves these out."""
        return self._part("norm") + self.final_norm

    @property
    def reduction(self) -> int:
        """All reduction steps as the published algorithm needs them, MAC."""
        return self._part("reduction")

    @property
    def model(self) -> int:
        """Everything but the reduction steps, MAC."""
        return self.embed + self.attention + self.mlp + self.norm + self.head

    @property
    def macs(self) -> int:
        """The total with the reduction steps in the published convention, MAC: the number to report."""
        return self.model + self.reduction

    @property
    def executed_macs(self) -> int:
        """The total with the reduction steps as this implementation runs them, MAC."""
        return self.model + self.executed_reduction

    @property
    def flops(self) -> int:
        """The total in FLOP, 2 per multiply-add."""
        return 2 * self.macs

    @property
    def gmac(self) -> float:
        """The total in 1e9 MAC."""
        return self.macs / 1e9

    @property
    def reduction_share(self) -> float:
        """Reduction steps over the total, 0 to 1."""
        return self.reduction / self.macs if self.macs else 0.0

    def block_macs(self, index: int) -> int:
        """One block with its reduction steps, MAC."""
        return sum(self.blocks[index].values())

    def implied_speedup(self, unreduced: MacReport) -> float:
        """The speed-up that the counts alone would give: unreduced MAC / this MAC."""
        return unreduced.macs / self.macs

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for JSON; every key names its unit."""
        return {
            "total_macs": self.macs,
            "total_flops": self.flops,
            "executed_macs": self.executed_macs,
            "embed_macs": self.embed,
            "attention_macs": self.attention,
            "mlp_macs": self.mlp,
            "norm_macs": self.norm,
            "head_macs": self.head,
            "reduction_macs": self.reduction,
            "executed_reduction_macs": self.executed_reduction,
            "reduction_share": self.reduction_share,
            "block_macs": [dict(block) for block in self.blocks],
            "notes": list(self.notes),
        }

    def _part(self, name: str) -> int:
        return sum(block[name] for block in self.blocks)


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
    g = geometry
    reduction = [0] * g.depth
    for step in plan.steps:
        reduction[step.block] += step.macs
    blocks = tuple(
        {
            "attention": attention_macs(g, n_attention),
            "mlp": 2 * g.dim * g.mlp_hidden * n_mlp,
            "norm": _block_norm_macs(g, n_attention, n_mlp),
            "reduction": steps,
        }
        for n_attention, n_mlp, steps in zip(plan.attention, plan.mlp, reduction, strict=True)
    )
    return MacReport(
        embed=plan.embedded * prod(g.kernel) * g.in_chans * g.dim,
        blocks=blocks,
        final_norm=NORM_MACS_PER_ELEMENT * g.dim * (plan.final if g.final_norm_tokens else 1),
        head=g.dim * g.classes * g.heads_out,
        executed_reduction=sum(step.executed_macs for step in plan.steps),
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
    patches = (geometry.grid if grid is None else grid).patches
    n = geometry.prefix + patches
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
