"""What one forward costs, by part: multiply-adds of one sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: fvcore's estimate for a norm with learned scale and shift.
NORM_MACS_PER_ELEMENT = 5
BLOCK_PARTS = ("attention", "mlp", "norm", "reduction")


@dataclass(frozen=True)
class MacReport:
    """Multiply-adds of one forward of one sample.

    Args:
        embed: patch embedding.
        blocks: one mapping per block: "attention" (qkv, both products, projection), "mlp" (with the light paths that
            tokens take instead), "norm" and "reduction" (the steps of that block as the published algorithm needs
            them).
        final_norm: the last norm.
        head: the linear classifiers, and a temporal model in front of them.
        executed_reduction: multiply-adds that this implementation runs for the reduction steps.
        skipped: multiply-adds of the blocks that this implementation does not run although the published convention
            counts them: attention of replica queries on windows.
        merging: patch merging between the stages of a hierarchical backbone, on its whole grids.
        reused: multiply-adds of the blocks whose results are taken over from an earlier step of the clip; not in
            ``attention`` and ``mlp``, which are those of all tokens.
        notes: corrections that the plan made.
    """

    embed: int
    blocks: tuple[Mapping[str, int], ...]
    final_norm: int
    head: int
    executed_reduction: int = 0
    skipped: int = 0
    merging: int = 0
    reused: int = 0
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
        """Norms of the blocks and the last one, MAC; those of embedding and merging are counted there."""
        return self._part("norm") + self.final_norm

    @property
    def reduction(self) -> int:
        """All reduction steps as the published algorithm needs them, MAC."""
        return self._part("reduction")

    @property
    def model(self) -> int:
        """Everything but the reduction steps, MAC."""
        return self.embed + self.attention + self.mlp + self.norm + self.merging + self.head - self.reused

    @property
    def macs(self) -> int:
        """The total with the reduction steps in the published convention, MAC: the number to report."""
        return self.model + self.reduction

    @property
    def executed_macs(self) -> int:
        """The total as this implementation runs it, MAC."""
        return self.model - self.skipped + self.executed_reduction

    @property
    def lean_macs(self) -> int:
        """The total in the published convention, but without queries of replicas on windows, MAC."""
        return self.macs - self.skipped

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
            "merging_macs": self.merging,
            "reused_macs": self.reused,
            "lean_macs": self.lean_macs,
            "reduction_macs": self.reduction,
            "executed_reduction_macs": self.executed_reduction,
            "reduction_share": self.reduction_share,
            "block_macs": [dict(block) for block in self.blocks],
            "notes": list(self.notes),
        }

    def _part(self, name: str) -> int:
        return sum(block[name] for block in self.blocks)
