"""STA: semantic-aware temporal accumulation (Ding et al., ICCV 2023, arXiv 2308.04549). Training-free pruning.

Verified against the official code's outputs: same kept tokens, same order. Differs from it in one gather
instead of a loop with copies, in float32 decisions, in guards for constant activation and zero keys
(official: NaN), and in deriving the temporal groups from the clip instead of a constant 8.

On VideoSwin there is no official code: built from the paper's text and held against all 16 published costs (table 3).
Tokens are dropped after each stage's patch merging, r, 1.5 r / 4 and 2 r / 16 of every frame, and are back in the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from tokred.accumulation import Choose, lowest, select
from tokred.backbones.geometry import Geometry
from tokred.matching import noise
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, Strength, TokenReducer, keep_patches
from tokred.reduction import Keep
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Shape, Step
from tokred.tokens import Grid, Tokens

CHOICES = {
    "similarity": ("key", "query", "value", "ffn"),
    "score": ("both", "activation", "accumulation"),
    "first": ("tome", "random", "grid"),
    "grouping": ("clip", "frame"),
}

Window = tuple[int, int, int]

STAGE_SHAPES: dict[str, Callable[[int], Fraction]] = {
    "decreasing": lambda i: 1 + Fraction(i, 2),
    "constant": lambda i: Fraction(1),
    "increasing": lambda i: Fraction(2**i),
}
"""Share of the grid that step i drops, relative to the first, on a hierarchical backbone."""


@register("sta")
class STA(TokenReducer):
    """Drop, after some blocks, the tokens of every frame whose content earlier frames already carry.

    Args:
        r: tokens dropped per frame (tubelet) at the first stage; one number, or one per stage (tokens per frame).
        at: blocks after which a stage runs; default 0, L//3, 2L//3; on VideoSwin the last block of every stage but
            the last.
        schedule: how r develops: "decreasing" (r, r/2, r/4: paper and code), "constant", "increasing". On VideoSwin
            these are shares of the grid, a quarter as large at each step: r, 1.5 r/4, 2 r/16 (paper); r, r/4, r/16;
            r, 2 r/4, 4 r/16.
        order: direction of each stage, F = forward in time, B = backward; repeated if there are more stages.
        similarity: head-averaged "key", "query" or "value", or the MLP branch's output "ffn".
        score: "both" (accumulated * (1 - activation)), "activation" or "accumulation" only.
        first: how the first frame is thinned: "tome", "random" or "grid".
        grouping: "clip" = the official code's T, T/2, T/4 groups of 1, 2, 4 frames; "frame" = the paper's text,
            every frame by itself at every stage, as always on VideoSwin.
        seed: for first="random".
    """

    status = "official code; published number"
    site = "after_block"
    strength = "r"
    published_macs = "the official code leaves dropped sources out of the affinities; here they stay, with mass zero"

    def __init__(
        self,
        r: int | tuple[int, ...] = 0,
        *,
        at: str | tuple[int, ...] = "thirds",
        schedule: Shape = "decreasing",
        order: str = "FBF",
        similarity: str = "key",
        score: str = "both",
        first: str = "tome",
        grouping: str = "clip",
        seed: int = 0,
    ) -> None:
        shape = schedule
        if isinstance(r, (tuple, list)):
            if schedule != "decreasing":
                raise ScheduleError(f"schedule = {schedule!r} needs a single r, not one per stage: r = {r}")
            shape = "constant"
        super().__init__(Schedule(at=at, drop=r, shape=shape))
        for name, value in (("similarity", similarity), ("score", score), ("first", first), ("grouping", grouping)):
            if value not in CHOICES[name]:
                raise ScheduleError(f"{name} = {value!r} is not one of {', '.join(CHOICES[name])}")
        if not order or set(order.upper()) - {"F", "B"}:
            raise ScheduleError(f"order = {order!r} is not a string of F (forward) and B (backward)")
        self.order = order.upper()
        self.similarity = similarity
        self.score = score
        self.first = first
        self.grouping = grouping
        self.seed = seed
        needs = {similarity, "frames"} | ({"sample_seed"} if first == "random" else set())
        self.capabilities = Capabilities(needs=frozenset(needs), keeps_frames=True, channel_blind=True)

    def steps(self, geometry: Geometry) -> dict[int, Step]:
        steps = super().steps(geometry)
        shape = STAGE_SHAPES.get(self.schedule.shape) if isinstance(self.schedule.shape, str) else None
        r = self._config["r"]
        if not geometry.stages or shape is None or isinstance(r, (tuple, list)):
            return steps
        return {b: replace(s, amount=Fraction(r) * shape(s.index) / 4**s.index) for b, s in steps.items()}

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        by_frame = tokens.cover is not None
        groups, g, r = self._stage(site.step, tokens.patch_count, tokens.groups, site.frames, by_frame)
        if tokens.cover is not None:
            r = self._rounded(r, tokens.grid, tokens.cover.window)
        if r == 0:
            return None
        metric = probe.ffn if self.similarity == "ffn" else probe.head_mean(self.similarity)
        backward = self.order[site.index % len(self.order)] == "B"
        kept = select(
            tokens.patches,
            metric[:, tokens.prefix :],
            groups,
            r,
            backward=backward,
            score=self.score,
            first_order=self._first_order(tokens, g, r, site),
            choose=self._choose(tokens, r, site),
        ).kept
        return keep_patches(tokens, kept, groups=groups)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        now, g, r = self._stage(step, count, groups, geometry.grid.t, bool(geometry.stages))
        if geometry.stages:
            r = self._rounded(r, geometry.grid, _window(geometry, step))
        wanted = step.amount * (geometry.grid.t // now)
        notes = []
        if r != wanted:
            notes.append(f"block {step.block}: {float(wanted):g} tokens per group rounded down to {r}")
        if r > (g + 1) // 2:
            notes.append(f"block {step.block}: r = {r} exceeds half of the first group's {g}, odd places go too")
        return Promise(count - now * r, now if r else groups, tuple(notes))

    def describe(self, geometry: Geometry) -> list[str]:
        notes = ["one frame: only the first-frame rule acts"] if geometry.grid.t == 1 else []
        if geometry.stages:
            notes.append("drops per frame of each stage's own grid; the next stage starts from a whole grid")
        return notes

    def strength_range(self, geometry: Geometry) -> Strength:
        """r from 0 to half of a frame, the sane limit of the first-frame rule (or less, if a stage binds)."""
        high = (geometry.reduced_grid.per_frame + 1) // 2
        while high > 0:
            try:
                self.with_(r=high).check(geometry)
                break
            except ScheduleError:
                high -= 1
        return Strength("r", 0, high, whole=True)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """Affinities and accumulation of one stage with dropped sources left out, as the official code computes."""
        groups, frames = self._groups(geometry.grid.t, step.index, bool(geometry.stages))
        g, r = (tokens - geometry.prefix) // groups, int(step.amount * frames)
        if geometry.stages:
            r = self._rounded(r, geometry.grid, _window(geometry, step))
            # What is compared comes from the stage that the step's block belongs to, not from the merged tokens.
            finished = geometry.stages[geometry.stage_of(step.block)]
            geometry = replace(geometry, dim=finished.dim, head_dim=finished.dim // finished.heads)
        d = geometry.dim if self.similarity == "ffn" else geometry.head_dim
        first = ((g + 1) // 2) * (g // 2) * d if self.first == "tome" else 0
        return first + (g * g * d if groups > 1 else 0) + max(groups - 2, 0) * g * (g - r) * (d + 1)

    def _stage(self, step: Step, count: int, groups: int | None, frames: int, by_frame: bool) -> tuple[int, int, int]:
        """Temporal groups of a stage, tokens in each, and how many of those are dropped."""
        now, each = self._groups(frames, step.index, by_frame)
        if groups is None or groups % now:
            raise ScheduleError(
                f"{self.spec} at block {step.block} needs {now} equal temporal groups, the tokens are in "
                f"{groups or 'none'}: an earlier step changed them"
            )
        g, r = count // now, int(step.amount * each)
        if r:
            _check_drop(r, g, each, step)
        return now, g, r

    def _groups(self, frames: int, stage: int, by_frame: bool) -> tuple[int, int]:
        """Temporal groups of a stage and frames in each: halved per stage while it divides and two groups remain."""
        groups = frames
        if self.grouping == "clip" and not by_frame:
            for _ in range(stage):
                if groups % 2 == 0 and groups > 2:
                    groups //= 2
        return groups, frames // groups

    def _rounded(self, r: int, grid: Grid, window: Window) -> int:
        """Tokens dropped per frame of a grid with windows, of r that are asked for."""
        return r

    def _choose(self, tokens: Tokens, r: int, site: Site) -> Choose:
        """Which tokens of a group stay; the lowest scores of the whole group."""
        return lowest

    def _first_order(self, tokens: Tokens, g: int, r: int, site: Site) -> Tensor | None:
        if self.first == "tome":
            return None
        b, device = tokens.x.shape[0], tokens.x.device
        if self.first == "random":
            assert tokens.sample_seed is not None
            kept = noise(tokens.sample_seed, g, self.seed, site.block).argsort(dim=1)[:, : g - r].sort(dim=1).values
        else:
            spread = torch.arange(g - r, device=device) * g // (g - r)
            kept = spread.expand(b, g - r)
        return kept


def _window(geometry: Geometry, step: Step) -> Window:
    """The windows of the grid that a step acts on."""
    return geometry.stages[geometry.stage_of(min(step.block + 1, geometry.depth - 1))].window


def _check_drop(r: int, g: int, frames: int, step: Step) -> None:
    if r >= g:
        amount = step.amount if not isinstance(step.amount, Fraction) else float(step.amount)
        per_frame = replace(step, amount=amount).amount
        raise ScheduleError(
            f"r = {per_frame:g} per frame at block {step.block} drops {r} of {g} tokens per group of {frames} "
            f"frame(s): allowed is below {Fraction(g, frames)}"
        )
