"""What STViT and STViT-R share: their sizes, the whole frames that they need, the generation of semantic tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.distillation import logit_distillation
from tokred.generate import Generate
from tokred.learned import WHOLE, LearnedReducer, fresh
from tokred.reducer import Capabilities, Site, Strength
from tokred.schedule import Schedule, ScheduleError
from tokred.semantic import LayerSize, SemanticTokens, own_cells, run_like
from tokred.semantic_windows import MARGIN, WindowLayer
from tokred.tokens import Grid, Tokens

if TYPE_CHECKING:
    from tokred.attach import Run

KEYS = ("clip", "frame", "window")

CAPABILITIES = Capabilities(
    trainable=True,
    keeps_frames=True,
    keeps_grid=True,
    keeps_order=True,
    identity_at_zero="patches are replaced by tokens that layers of its own make: no setting leaves them as they are",
)


class Window(NamedTuple):
    """Windows of a frame: their side in image tokens, their number and their semantic tokens per side."""

    side: int
    per_side: int
    tokens: int


class SemanticReducer(LearnedReducer):
    """Base: generation of side x side tokens per frame by layers of its own."""

    strength = "side"
    capabilities = CAPABILITIES
    generation: nn.ModuleList

    def __init__(
        self, side: int, layers: int, centres: bool, keys: str, weights: str | None, scale: float, distill: float
    ) -> None:
        if side < 1:
            raise ScheduleError(f"side = {side} is not a whole number of at least 1")
        if layers < 2:
            raise ScheduleError(f"layers = {layers} is not a whole number of at least 2")
        if keys not in KEYS:
            raise ScheduleError(f"keys = {keys!r} is not one of {', '.join(KEYS)}")
        if distill < 0:
            raise ScheduleError(f"distill_weight = {distill} is negative: allowed is 0 or more")
        super().__init__(Schedule(at=(), drop=0), weights)
        self.side = side
        self.layers = layers
        self.use_centres = centres
        self.keys = keys
        self.layer_scale = scale
        self.distill_weight = distill
        self.generation = nn.ModuleList()

    def sizes(self, geometry: Geometry) -> tuple[Any, ...]:
        frames = geometry.grid.t if self.use_centres else 0
        return (*layer_size(self.seen(geometry)), frames, len(self.steps(geometry)))

    def strength_range(self, geometry: Geometry) -> Strength:
        """Tokens per side of a frame, from the most that are fewer than its patches down to one."""
        _, h, w = self.seen(geometry).grid
        most = min(h, w) - (1 if h == w else 0)
        if most < 1:
            raise ScheduleError(f"{self.spec} cannot make fewer tokens than a frame of {h} x {w} patches has")
        return Strength("side", most, 1, whole=True)

    def made(self, grid: Grid) -> Grid:
        """The grid of the semantic tokens."""
        return Grid(grid.t, self.side, self.side)

    def whole(self, count: int, groups: int | None, grid: Grid, block: int) -> None:
        """Refuse tokens that are not the patches of whole frames, and frames that are too small.

        Raises:
            ScheduleError: with the numbers.
        """
        if count != grid.patches or groups not in (None, grid.t):
            raise ScheduleError(
                f"{self.spec} at block {block} pools whole frames: it needs all {grid.patches} patches in {grid.t} "
                f"frames; {count} tokens are in {groups or 'no'} groups"
            )
        _, h, w = grid
        if self.side > min(h, w) or self.side**2 >= h * w:
            most = min(h, w) - (1 if h == w else 0)
            allowed = f"allowed is 1..{most}, which makes fewer" if most else "one patch cannot become fewer"
            raise ScheduleError(
                f"side = {self.side} makes {self.side**2} tokens of a frame of {h} x {w} patches at block {block}: "
                f"{allowed}"
            )

    def generate(self, tokens: Tokens, site: Site, number: int, sets_aside: bool = False) -> Generate:
        """Semantic tokens of all frames, by the generation of this number."""
        if tokens.policy is not None:
            raise ScheduleError(f"{self.spec} cannot follow masked training: masked tokens would be pooled")
        grid = tokens.grid
        self.whole(tokens.patch_count, tokens.groups, grid, site.block)
        cells = own_cells(grid.h, grid.w, self.side).to(tokens.x.device)
        start = torch.arange(grid.t, device=tokens.x.device)[:, None] * self.side**2
        made = self.made(grid)
        return Generate(
            partial(_generated, self.generation[number], grid),
            (cells + start).flatten().expand(tokens.x.shape[0], -1),
            made.patches,
            tokens.prefix,
            groups=grid.t,
            grid=None if tokens.cover is None else made,
            sets_aside=sets_aside,
        )

    def adapt(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """Centres learned at another side are resampled; the layers fit every side."""
        own, done = self.state_dict(), ""
        fitted = dict(state)
        for name, tensor in state.items():
            if name.endswith(".centres") and name in own and _resampled(tensor, own[name]):
                t, m, c = tensor.shape
                before, after = math.isqrt(m), math.isqrt(own[name].shape[1])
                maps = tensor.float().reshape(t, before, before, c).permute(0, 3, 1, 2)
                maps = F.interpolate(maps, size=(after, after), mode="bilinear", align_corners=False)
                fitted[name] = maps.permute(0, 2, 3, 1).reshape(t, after * after, c)
                done = f"centres resampled from {before} x {before} to {after} x {after} per frame"
        return fitted, done

    def describe(self, geometry: Geometry) -> list[str]:
        _, h, w = self.seen(geometry).grid
        made = f"{self.side} x {self.side} semantic tokens per frame of {h} x {w} patches"
        return [*super().describe(geometry), f"{made}, made by {self.layers} layers of its own"]

    def training_losses(self, student: Run, teacher: Run | None, tasks: Sequence[slice] = WHOLE) -> dict[str, Tensor]:
        """Divergence of the logits from the unreduced model's; the official training has the task's loss alone."""
        if teacher is None or self.distill_weight == 0:
            return {}
        return {"logits": self.distill_weight * logit_distillation(student.logits, teacher.logits, tasks)}

    def fresh_generation(self, geometry: Geometry, number: int, centres: bool) -> SemanticTokens:
        """An untrained generation."""
        frames = geometry.grid.t if centres else 0
        seen = self.seen(geometry)
        size, window = layer_size(seen), self.window(seen)

        def make() -> SemanticTokens:
            first = None
            if window is not None:
                first = WindowLayer(size, window.tokens, window.side, scale=self.layer_scale)
            return SemanticTokens(size, self.side, self.layers, frames, self.keys, self.layer_scale, first)

        return fresh(make, seed=number)

    def window(self, seen: Geometry) -> Window | None:
        """The windows of the first layer, None where it looks at whole frames or clips.

        Args:
            seen: the geometry at the blocks where it acts.
        Raises:
            ScheduleError: the backbone has no windows, or they do not divide frames and tokens.
        """
        if self.keys != "window":
            return None
        if not seen.stages:
            raise ScheduleError(f"{self.spec}: keys = window is for a backbone with windows: allowed is clip, frame")
        stage = next(stage for stage in seen.stages if stage.dim == seen.dim)
        _, rows, columns = seen.grid
        side = min(stage.window[1], rows)
        count = rows // side
        fits = stage.window[1] == stage.window[2] and rows == columns and rows % side == 0 and self.side % count == 0
        if not fits:
            raise ScheduleError(
                f"{self.spec}: windows of {stage.window[1]} x {stage.window[2]} must divide a square frame, and their "
                f"number per side the tokens: the frame is {rows} x {columns}, side = {self.side}"
            )
        return Window(side, count, self.side // count)

    def generation_macs(self, geometry: Geometry, window: Window | None) -> int:
        """Cross layers of M queries: the first looks at image tokens, every other at both kinds.

        Args:
            geometry: what the step sees.
        """
        size, grid = layer_size(geometry), geometry.grid
        n, m = grid.patches, self.made(grid).patches
        first = size.macs(m, n)
        if window is not None:
            around = min(grid.h, window.side + MARGIN) ** 2
            first = grid.t * window.per_side**2 * size.macs(window.tokens**2, window.tokens**2 + around)
        elif self.keys == "frame":
            first = grid.t * size.macs(m // grid.t, n // grid.t)
        return first + (self.layers - 1) * size.macs(m, m + n)

    def seen(self, geometry: Geometry) -> Geometry:
        """The geometry at the blocks where it acts."""
        return geometry


def layer_size(geometry: Geometry) -> LayerSize:
    """Sizes of new layers: those of the host's blocks."""
    # A stage's heads may have another width than those of the first stage, which head_dim is of.
    head_dim = geometry.dim // geometry.heads if geometry.stages else geometry.head_dim
    return LayerSize(geometry.dim, geometry.heads, head_dim, geometry.mlp_hidden)


def _resampled(theirs: Tensor, ours: Tensor) -> bool:
    """Whether centres (T, side * side, C) differ in their side alone."""
    same = theirs.ndim == 3 and (theirs.shape[0], theirs.shape[2]) == (ours.shape[0], ours.shape[2])
    return same and theirs.shape != ours.shape and math.isqrt(theirs.shape[1]) ** 2 == theirs.shape[1]


def _generated(module: nn.Module, grid: Grid, patches: Tensor) -> Tensor:
    return run_like(module, patches.unflatten(1, tuple(grid)))
