"""Eventful: compute only the tokens that changed since the last frame (Dutson, Li, Gupta, ICCV 2023, arXiv 2308.13494).

Nothing is removed: every block remembers what it last computed for each token, a gate in front of each linear part
picks the tokens that moved most since they were last sent on, and the rest comes out of buffers. Q K^T is kept up to
date row by row and column by column, A V by the change. Weights stay as they are, nothing is trained. The state lives
on the reducer: ``reset`` starts a new video, whose first frame is computed in full; the samples of a batch are streams
in lockstep.

Settings reproduce the official code (WISION-Lab/eventful-transformer); two of its defects have an option or are mended,
see ``refresh``, ``pool_size`` and ``cast``. Where a host runs its blocks over the steps of one clip (factorised ViViT),
each call is a video of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.backbones.parts import BlockParts
from tokred.measure.flops import attention_macs
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, Strength, TokenReducer
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.streaming import Chosen, Fraction, GatedBlock, GateSettings, Policy, Threshold, TopR
from tokred.streaming.blocks import VARIANTS
from tokred.streaming.counts import BlockSizes, frame_counts, frame_macs, planned_macs
from tokred.streaming.pooling import Pooling
from tokred.tokens import Tokens

CASTS = {"none": None, "float16": torch.float16, "bfloat16": torch.bfloat16}


class StreamError(ValueError):
    """A frame that does not continue the streams that the state is of."""


@dataclass(frozen=True)
class Work:
    """What one block did on one frame, all streams together.

    Args:
        block: its index; flush: whether it was a first frame.
        sent: tokens that each gate sent; empty at a flush.
        macs: multiply-adds of linear layers and products as run; official: the counters of the official code.
    """

    block: int
    flush: bool
    sent: dict[str, int]
    macs: int
    official: dict[str, int]


@register("eventful")
class Eventful(TokenReducer):
    """Gates over time: r tokens of each gate are computed, the others reused.

    Args:
        r: tokens that each gate sends per frame, prefix included; None = all, unless one of the next two is given.
        fraction: share of the tokens instead, rounded down.
        threshold: all tokens whose change is longer than this instead; the number then follows the content.
        variant: "tokenwise" gates the linear layers; "qk" also keeps Q K^T; "full" (the method) also A V.
        stgt: the baseline: gates compare with the last frame, so changes that were not sent are forgotten. Needs
            variant "tokenwise".
        pool_size: average keys and values over squares of that many patches a side; every stream of a batch by itself
            (the official code is right for one stream only).
        refresh: recompute A V from scratch every so many frames; 0 = never, as published. A V lets only those columns
            of A through whose token changed, so static tokens keep stale columns and a static scene keeps its error;
            1 is exact, at the cost of variant "qk".
        cast: "float16" or "bfloat16": A and V in the kept product; the sum is float32 whatever this is.
        gate_before_norm: gates compare tokens before their norm (an ablation).
        order: p of the norm that measures change.
        at: blocks; default all.
    """

    status = "official code"
    site = "before_block"
    strength = "r"
    evaluates = True
    capabilities = Capabilities(
        changes_length=False, stateful=True, keeps_frames=True, keeps_grid=True, keeps_order=True
    )

    def __init__(
        self,
        r: int | None = None,
        *,
        fraction: float | None = None,
        threshold: float | None = None,
        variant: str = "full",
        stgt: bool = False,
        pool_size: int = 1,
        refresh: int = 0,
        cast: str = "none",
        gate_before_norm: bool = False,
        order: float = 2,
        at: str | tuple[int, ...] = "all",
    ) -> None:
        given = [f"{name} = {value}" for name, value in _amounts(r, fraction, threshold) if value is not None]
        if len(given) > 1:
            raise ScheduleError(f"give one of r, fraction and threshold; given: {', '.join(given)}")
        if r is not None and r < 0:
            raise ScheduleError(f"r = {r} is not a whole number of at least 0")
        if fraction is not None and not 0 <= fraction <= 1:
            raise ScheduleError(f"fraction = {fraction} is not in [0, 1]")
        for name, value, allowed in (("variant", variant, VARIANTS), ("cast", cast, tuple(CASTS))):
            if value not in allowed:
                raise ScheduleError(f"{name} = {value!r} is not one of {', '.join(allowed)}")
        for name, number, least in (("pool_size", pool_size, 1), ("refresh", refresh, 0)):
            if number < least:
                raise ScheduleError(f"{name} = {number} is not a whole number of at least {least}")
        if order <= 0:
            raise ScheduleError(f"order = {order} is not a positive number")
        for name, needed, wanted in (("stgt", stgt, "tokenwise"), ("refresh", refresh, "full")):
            if needed and variant != wanted:
                raise ScheduleError(f"{name} = {needed} needs variant = {wanted}, not {variant}")
        if cast != "none" and variant != "full":
            raise ScheduleError(f"cast = {cast} needs variant = full, not {variant}")
        super().__init__(Schedule(at=at, keep=1.0))
        self.r, self.fraction, self.threshold = r, fraction, threshold
        self.pool_size = pool_size
        self._settings = GateSettings(
            _policy(r, fraction, threshold, order), variant, stgt, gate_before_norm, refresh, CASTS[cast]
        )
        if pool_size > 1:
            pooled = f"pool_size = {pool_size} averages keys and values, also where every token is computed"
            self.capabilities = replace(type(self).capabilities, identity_at_zero=pooled)
        self._blocks: dict[int, GatedBlock] = {}
        self._geometry: Geometry | None = None
        self._log: list[Work] | None = None

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> None:
        return None

    def evaluate(self, parts: BlockParts, tokens: Tokens, site: Site) -> Tensor:
        x = tokens.x
        block = self._blocks.get(site.block)
        if block is None:
            pooling = Pooling(self.pool_size, tokens.grid, tokens.prefix) if self.pool_size > 1 else None
            block = self._blocks[site.block] = GatedBlock(self._settings, pooling)
        reason = block.refuses(x)
        if reason is not None:
            raise StreamError(
                f"{self.spec}, block {site.block}: {reason}: reset() starts a new video; streams begin and end together"
            )
        out = block(parts, x)
        if self._log is not None:
            self._log.append(self._work(block, site.block, x.shape[1]))
        return out

    def steps(self, geometry: Geometry) -> dict[int, Step]:
        blocks = self.schedule.blocks(geometry.depth, geometry.sites(self.site))
        return {block: Step(block, i, "keep", 1.0) for i, block in enumerate(blocks)}

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        tokens = count + geometry.prefix
        if self.r is not None and self.r > tokens:
            raise ScheduleError(
                f"r = {self.r} at block {step.block} is impossible with {tokens} tokens: allowed is 0..{tokens}"
            )
        if self.pool_size > 1:
            Pooling(self.pool_size, geometry.grid, geometry.prefix)  # refuses grids that do not divide
        return Promise(count, groups)

    def strength_range(self, geometry: Geometry) -> Strength:
        return Strength("r", geometry.tokens, 0, whole=True)

    def reused(self, geometry: Geometry, counts: Sequence[int]) -> int:
        if self.threshold is not None or geometry.stages:
            return 0  # the content decides
        total = 0
        for block in self.steps(geometry):
            n = counts[block]
            columns = n
            if self.pool_size > 1:
                columns = Pooling(self.pool_size, geometry.grid, geometry.prefix).count
            plain = attention_macs(geometry, n) + 2 * geometry.dim * geometry.mlp_hidden * n
            first, later = (planned_macs(self._settings, geometry, n, columns, flush) for flush in (True, False))
            total += geometry.steps * plain - first - (geometry.steps - 1) * later
        return total

    def describe(self, geometry: Geometry) -> list[str]:
        if self.threshold is not None:
            return ["first frame of a video in full; later ones as their content asks for"]
        n = geometry.tokens
        sent = n if self.r is None and self.fraction is None else self._settings.policy.choose(torch.zeros(1, n)).width
        return [f"first frame of a video in full; of later ones each gate computes {sent} of {n} tokens"]

    def prepare(self, geometry: Geometry, host: nn.Module | None = None) -> None:
        self._geometry = geometry

    def reset(self) -> None:
        self._blocks = {}

    def change(self, *, r: int | None = None, fraction: float | None = None, threshold: float | None = None) -> None:
        """Another amount from the next frame on, without a reset; exactly one of the three.

        Raises:
            ScheduleError: none or several, or out of range.
        """
        fresh = self.with_(r=r, fraction=fraction, threshold=threshold)
        self.r, self.fraction, self.threshold = r, fraction, threshold
        self._settings = fresh._settings
        self._config.update(r=r, fraction=fraction, threshold=threshold)
        for block in self._blocks.values():
            block.change(fresh._settings)

    @contextmanager
    def recorded(self) -> Iterator[list[Work]]:
        """Inside, every block that runs is written down."""
        before, self._log = self._log, []
        try:
            yield self._log
        finally:
            self._log = before

    def _work(self, block: GatedBlock, index: int, n: int) -> Work:
        geometry = self._geometry
        if geometry is None:
            raise StreamError(f"{self.spec} was not attached: its work cannot be counted")
        sizes = BlockSizes(
            tokens=n,
            dim=geometry.dim,
            inner=geometry.heads * geometry.head_dim,
            heads=geometry.heads,
            hidden=geometry.mlp_hidden,
            columns=n if block.pooling is None else block.pooling.count,
        )
        sent = {name: int(chosen.counts.sum()) for name, chosen in block.chosen.items()}
        return Work(index, block.frames == 1, sent, frame_macs(block, sizes), frame_counts(block, sizes))

    def updates(self) -> dict[int, dict[str, Chosen]]:
        """What each gate of each block sent on the last frame; no gates after a first frame."""
        return {index: dict(block.chosen) for index, block in self._blocks.items()}

    def state_bytes(self) -> int:
        """Memory of everything that is remembered, all streams together."""
        return sum(t.numel() * t.element_size() for block in self._blocks.values() for t in block.tensors())

    def blocks(self) -> dict[int, GatedBlock]:
        """The state of each block, by its index."""
        return dict(self._blocks)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Eventful:
        # Moved to another device or precision: the state would be of neither.
        self.reset()
        return super()._apply(fn, recurse)


def _amounts(r: object, fraction: object, threshold: object) -> tuple[tuple[str, object], ...]:
    return (("r", r), ("fraction", fraction), ("threshold", threshold))


def _policy(r: int | None, fraction: float | None, threshold: float | None, order: float) -> Policy:
    if threshold is not None:
        return Threshold(threshold, order)
    return TopR(r, order) if r is not None else Fraction(1.0 if fraction is None else fraction, order)
