"""What replaying STA on VideoSwin needs around a model: given kept sets, and a look at every block's output."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tokred.backbones.adapter import Crossed
from tokred.backbones.geometry import Geometry
from tokred.backbones.videoswin_adapter import VideoSwinAdapter
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, TokenReducer
from tokred.reduction import Keep, Reduction
from tokred.run.parity.settings import Malformed
from tokred.schedule import Schedule
from tokred.tokens import Grid, Tokens


class GivenSets(TokenReducer):
    """Keeps given tokens of every frame at the entry of each stage but the first.

    Args:
        keep: per site (B, T, k), raster places of the frame's grid.
    """

    site = "after_block"
    capabilities = Capabilities(needs=frozenset({"frames"}), keeps_frames=True, keeps_order=True)

    def __init__(self, keep: list[Tensor]) -> None:
        super().__init__(Schedule(at="thirds", tokens=tuple(sets.shape[2] for sets in keep)))
        self.keep = keep

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        places = per_frame(self.keep[site.index], tokens.grid)
        if places.shape[1] == tokens.count:
            return None
        # Planning runs one sample: any of them has the counts of all.
        return Keep(places[: tokens.x.shape[0]], tokens.count, tokens.grid.t)


class WatchedSwin(VideoSwinAdapter):
    """The adapter of VideoSwin that keeps the tokens after each block, before the next stage's patch merging.

    Attributes:
        outputs: (B, N, C) of each block of the last forward, in order.
    """

    def __init__(self, skip_replicas: bool = True) -> None:
        super().__init__(skip_replicas)
        self.outputs: list[Tensor] = []

    def cross(self, model: nn.Module, index: int, tokens: Tokens) -> Crossed | None:
        if index == 0:
            self.outputs.clear()
        self.outputs.append(tokens.x)
        return super().cross(model, index, tokens)


def per_frame(keep: Tensor, grid: Grid) -> Tensor:
    """Places of each frame (B, T, k) as places of the whole grid, (B, T * k).

    Raises:
        Malformed: they are not places of the grid's frames, each once and rising.
    """
    b, t, k = keep.shape
    if t != grid.t or not 1 <= k <= grid.per_frame or int(keep.min()) < 0 or int(keep.max()) >= grid.per_frame:
        raise Malformed(f"kept places {tuple(keep.shape)} are not places of the frames of a grid {tuple(grid)}")
    if not bool((keep[..., 1:] > keep[..., :-1]).all()):
        raise Malformed("kept places are not sorted, each once")
    return (keep + torch.arange(t)[:, None] * grid.per_frame).view(b, t * k)


def kept_sets(steps: Sequence[tuple[Site, Reduction]], geometry: Geometry, batch: int) -> list[Tensor]:
    """What each stage but the first kept, (B, T * k) places of its grid in the order of the tokens."""
    found = [torch.arange(geometry.stage_grid(i).patches).expand(batch, -1) for i in range(1, len(geometry.stages))]
    for site, reduction in steps:
        if not isinstance(reduction, Keep):
            raise Malformed(f"a {type(reduction).__name__} was made where a subset must be kept")
        found[geometry.stage_of(site.block + 1) - 1] = reduction.index
    return found
