"""Baselines that every comparison shows: random, regular, attention and smaller-input reductions.

Two independent benchmarks found random pruning and plain down-sampling ahead of published methods, so they are not
optional here.
"""

from __future__ import annotations

import torch

from tokred.backbones.geometry import Geometry
from tokred.matching import noise
from tokred.probe import Probe
from tokred.ranking import ranking
from tokred.reducer import Capabilities, Site, SmallerInput, Strength, TokenReducer, keep_patches, keep_top
from tokred.reduction import Keep, Merge
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Grid, Tokens


@register("none")
class Unreduced(TokenReducer):
    """The host as it is: the reference of every comparison."""

    status = "baseline"
    capabilities = Capabilities(
        changes_length=False, keeps_frames=True, keeps_grid=True, keeps_order=True, channel_blind=True
    )

    def __init__(self) -> None:
        super().__init__(Schedule(at=(), drop=0))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> None:
        return None


@register("random_drop")
class RandomDrop(TokenReducer):
    """Drop random tokens. The choice is a function of the clip's own bits and the seed.

    Args:
        keep: share of the current tokens that a step keeps.
        at: blocks after which a step runs; default 0, L//3, 2L//3, where STA acts.
        seed: another seed, another choice.
    """

    status = "baseline"
    site = "after_block"
    strength = "keep"
    capabilities = Capabilities(needs=frozenset({"sample_seed"}), keeps_order=True, channel_blind=True)

    def __init__(
        self, keep: float | tuple[float, ...] = 1.0, *, at: str | tuple[int, ...] = "thirds", seed: int = 0
    ) -> None:
        super().__init__(Schedule(at=at, keep=keep))
        self.seed = seed

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        n = tokens.patch_count
        left = site.left(n)
        assert tokens.sample_seed is not None
        return None if left == n else keep_top(tokens, noise(tokens.sample_seed, n, self.seed, site.block), left)


@register("random_merge")
class RandomMerge(TokenReducer):
    """Merge random tokens into random others, weighted by mass: merging without any similarity.

    Args:
        keep: share of the current tokens that a step leaves.
        at: blocks after which a step runs; default 0, L//3, 2L//3.
        seed: another seed, another choice.
    """

    status = "baseline"
    site = "after_block"
    strength = "keep"
    pool = "mass"
    capabilities = Capabilities(needs=frozenset({"sample_seed"}), keeps_order=True, channel_blind=True)

    def __init__(
        self, keep: float | tuple[float, ...] = 1.0, *, at: str | tuple[int, ...] = "thirds", seed: int = 0
    ) -> None:
        super().__init__(Schedule(at=at, keep=keep))
        self.seed = seed

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Merge | None:
        n = tokens.patch_count
        left = site.left(n)
        if left == n:
            return None
        assert tokens.sample_seed is not None
        order = ranking(noise(tokens.sample_seed, n, self.seed, site.block), 1)
        kept = order[:, :left].sort(dim=1).values
        target = noise(tokens.sample_seed, n, self.seed, site.block, 1) % left
        places = torch.arange(left, device=kept.device).expand_as(kept)
        assign = target.scatter(1, kept, places)
        if tokens.prefix:
            front = torch.arange(tokens.prefix, device=kept.device).expand(kept.shape[0], tokens.prefix)
            assign = torch.cat([front, assign + tokens.prefix], dim=1)
        return Merge(assign, tokens.prefix + left)


@register("grid")
class GridKeep(TokenReducer):
    """Keep every so-many-th token of each frame, evenly in reading order.

    Args:
        keep: share of the current tokens of each frame that a step keeps.
        at: blocks after which a step runs; default 0, L//3, 2L//3.
    """

    status = "baseline"
    site = "after_block"
    strength = "keep"
    capabilities = Capabilities(needs=frozenset({"frames"}), keeps_frames=True, keeps_order=True, channel_blind=True)

    def __init__(self, keep: float | tuple[float, ...] = 1.0, *, at: str | tuple[int, ...] = "thirds") -> None:
        super().__init__(Schedule(at=at, keep=keep))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        assert tokens.groups is not None
        groups, g = tokens.groups, tokens.patch_count // tokens.groups
        left = site.left(g)
        if left == g:
            return None
        device = tokens.x.device
        inside = torch.arange(left, device=device) * g // left
        index = (torch.arange(groups, device=device)[:, None] * g + inside).reshape(1, -1)
        return keep_patches(tokens, index.expand(tokens.x.shape[0], -1), groups=groups)


@register("topk")
class TopK(TokenReducer):
    """Keep the most attended tokens, in their places: the plainest attention pruning.

    Args:
        keep: share of the current tokens that a step keeps.
        at: blocks between whose attention and MLP a step runs; default 0, L//3, 2L//3.
    """

    status = "baseline"
    site = "after_attention"
    strength = "keep"
    published_macs = "with windows, row statistics are computed for all places of the grid, padding included"
    capabilities = Capabilities(needs=frozenset({"class_row", "received"}), keeps_order=True, channel_blind=True)

    def __init__(self, keep: float | tuple[float, ...] = 1.0, *, at: str | tuple[int, ...] = "thirds") -> None:
        super().__init__(Schedule(at=at, keep=keep))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        n = tokens.patch_count
        left = site.left(n)
        if left == n:
            return None
        row = probe.class_row if tokens.has_class_token else probe.received
        return keep_top(tokens, row[:, tokens.prefix :], left)

    def describe(self, geometry: Geometry) -> list[str]:
        return [f"ranked by {'class' if geometry.has_class_token else 'received'} attention"]

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """One attention row, or all of them where there is no class token."""
        row = tokens * geometry.heads * geometry.head_dim
        return row if geometry.has_class_token else row * (geometry.span or tokens)


class _SmallerInput(TokenReducer):
    """A reducer that acts on the input alone."""

    capabilities = Capabilities(keeps_frames=True, keeps_grid=True, keeps_order=True, channel_blind=True)

    def __init__(self) -> None:
        super().__init__(Schedule(at=(), drop=0))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> None:
        return None


@register("fewer_frames")
class FewerFrames(_SmallerInput):
    """Fewer frames: evenly spaced tubelets of the clip, each with the positions of its own time.

    Args:
        tubelets: how many stay; None = all.
    """

    status = "baseline"
    strength = "tubelets"

    def __init__(self, tubelets: int | None = None) -> None:
        super().__init__()
        if tubelets is not None and tubelets < 1:
            raise ScheduleError(f"tubelets = {tubelets} is not a whole number of at least 1")
        self.tubelets = tubelets

    def strength_range(self, geometry: Geometry) -> Strength:
        if geometry.grid.t == 1:
            raise ScheduleError("fewer_frames needs a video: this backbone sees one frame")
        return Strength("tubelets", geometry.grid.t, 1, whole=True)

    def smaller_input(self, geometry: Geometry) -> SmallerInput | None:
        t, h, w = geometry.grid
        if self.tubelets is not None and self.tubelets > t:
            raise ScheduleError(f"tubelets = {self.tubelets} is not in 1..{t}")
        if self.tubelets is None or self.tubelets == t:
            return None
        frames = tuple((2 * i + 1) * t // (2 * self.tubelets) for i in range(self.tubelets))
        return SmallerInput(Grid(len(frames), h, w), frames)


@register("lower_resolution")
class LowerResolution(_SmallerInput):
    """Fewer pixels: the clip resized (bilinear, antialiased), positions resampled (bicubic).

    Args:
        rows: patch rows that stay; columns shrink in proportion. None = all.
    """

    status = "baseline"
    strength = "rows"

    def __init__(self, rows: int | None = None) -> None:
        super().__init__()
        if rows is not None and rows < 1:
            raise ScheduleError(f"rows = {rows} is not a whole number of at least 1")
        self.rows = rows

    def strength_range(self, geometry: Geometry) -> Strength:
        return Strength("rows", geometry.grid.h, 1, whole=True)

    def smaller_input(self, geometry: Geometry) -> SmallerInput | None:
        t, h, w = geometry.grid
        if self.rows is not None and self.rows > h:
            raise ScheduleError(f"rows = {self.rows} is not in 1..{h}")
        if self.rows is None or self.rows == h:
            return None
        return SmallerInput(Grid(t, self.rows, max(1, round(w * self.rows / h))))
