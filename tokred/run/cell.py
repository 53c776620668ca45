"""A cell: one model, one reducer, one set of clips, one measure - the unit that is computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tokred.run.clips import ClipSettings
from tokred.run.environment import code_digest
from tokred.run.store import cell_id

PREDICT = "predict"

BATCH_GMAC = 8.0
"""Without a batch size, a batch takes about so many GMAC, and at most 8 clips: what stays in cache."""

BATCH_TOKENS = 4096
"""Of images with few tokens a batch may hold more than 8: so many tokens in all."""


def batch_for(gmac: float, tokens: int) -> int:
    """Clips per call for an unreduced model of so many GMAC and tokens a clip."""
    return max(1, min(max(8, BATCH_TOKENS // tokens), int(BATCH_GMAC / gmac)))


@dataclass(frozen=True)
class Cell:
    """What is computed.

    Args:
        backbone: name for ``create_backbone``; checkpoint: its weights; num_classes: of a head that is replaced.
        reducer: full spec, "none" for the unreduced model; a budget has been solved before.
        clips: what it is measured on.
        measure: name in ``tokred.run.measures``.
        batch: clips per call; device, dtype: where and how it runs.
    """

    backbone: str
    reducer: str
    clips: ClipSettings = field(default_factory=ClipSettings)
    measure: str = PREDICT
    checkpoint: str | None = None
    num_classes: int | None = None
    batch: int = 8
    device: str = "cpu"
    dtype: str = "float32"

    @property
    def unreduced(self) -> Cell:
        """The cell that this one's answers are paired with: the unreduced model on the same clips."""
        return replace(self, reducer="none", measure=PREDICT)

    def id(self, weights: str, data: str, reducer: str | None) -> str:
        """Hash of everything that the result depends on.

        Args:
            weights: digest of the host's weights; data: digest of the clips.
            reducer: what its settings do not name, from ``reducer_digest``; None without any.
        """
        return cell_id(
            {
                "backbone": self.backbone,
                "weights": weights,
                "data": data,
                "reducer": self.reducer,
                "parameters": reducer,
                "measure": self.measure,
                "batch": self.batch,
                "device": self.device.partition(":")[0],
                "dtype": self.dtype,
                "code": code_digest(),
            }
        )


def plain(cell: Cell) -> dict[str, Any]:
    """The cell as values for JSON."""
    return {**vars(cell), "clips": {**vars(cell.clips), "views": list(cell.clips.views)}}
