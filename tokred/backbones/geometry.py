"""The sizes of a backbone that counting, planning and validating need: no weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from tokred.tokens import Grid


class Stage(NamedTuple):
    """One stage of a hierarchical backbone with window attention.

    Args:
        depth: number of blocks; dim: width C; heads: attention heads.
        window: (frames, rows, columns) of a window in tokens, before it is clipped to the grid.
    """

    depth: int
    dim: int
    heads: int
    window: tuple[int, int, int]


class StageSites(NamedTuple):
    """Where steps act on a hierarchical backbone, for one kind of site.

    Args:
        entries: blocks at which a step acts on a fresh grid: the first chance in every stage but the first.
        reduced: all blocks at which a step acts on the grid of any stage but the first.
        patches: per block, the places of the grid that a step at that block acts on.
    """

    entries: tuple[int, ...]
    reduced: tuple[int, ...]
    patches: tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """Shape of a transformer; with ``stages``, of a hierarchical one, whose first stage the other fields describe.

    Args:
        depth: number of blocks, of all stages together.
        dim: width C.
        heads: attention heads; head_dim: width of each.
        mlp_hidden: hidden width of the MLP.
        grid: patch grid at the native input size.
        prefix: class, distillation and register tokens in front; class_token: whether the first is a class token.
        classes: length of the logits.
        kernel: (frames, rows, columns) in pixels of one patch; in_chans: colour channels.
        qk_norm: whether queries and keys are normalised per head.
        inner_norms: extra norms over C inside each attention branch (0 or 1).
        final_norm_tokens: whether the last norm runs over all tokens (True) or over the pooled vector.
        heads_out: number of linear classifiers (2 for distilled models).
        stages: the stages of a hierarchical backbone; rows and columns halve, rounded up, from one to the next.
        embed_norm: whether a norm follows the patch embedding (counted where there are stages).
        span: keys that a query attends to, None = all tokens.
        steps: times that the blocks run over one clip: a factorised model runs them once for each tubelet, and ``grid``
            and ``prefix`` are those of one step.
        tail: multiply-adds behind the blocks that no reduction touches, such as a temporal model over the steps.
    """

    depth: int
    dim: int
    heads: int
    head_dim: int
    mlp_hidden: int
    grid: Grid
    prefix: int
    classes: int
    kernel: tuple[int, int, int]
    in_chans: int = 3
    qk_norm: bool = False
    inner_norms: int = 0
    final_norm_tokens: bool = False
    heads_out: int = 1
    video: bool = True
    class_token: bool = True
    stages: tuple[Stage, ...] = ()
    embed_norm: bool = False
    span: int | None = None
    steps: int = 1
    tail: int = 0

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token."""
        return self.class_token and self.prefix > 0

    @property
    def tokens(self) -> int:
        """Tokens entering the first block, prefix included."""
        return self.prefix + self.grid.patches

    def input_shape(self, batch: int = 1, grid: Grid | None = None) -> tuple[int, ...]:
        """Shape of the model input: (B, 3, T, H, W), or (B, 3, H, W) for an image model."""
        g = self.grid if grid is None else grid
        t, h, w = (length * step for length, step in zip(g, self.kernel, strict=True))
        t *= self.steps
        return (batch, self.in_chans, t, h, w) if self.video else (batch, self.in_chans, h, w)

    @property
    def reduced_grid(self) -> Grid:
        """The grid that the first step acts on by default: that of the second stage, if there are stages."""
        return self.stage_grid(1) if len(self.stages) > 1 else self.grid

    def stage_of(self, block: int) -> int:
        """Number of the stage that a block belongs to; 0 without stages."""
        for number, stage in enumerate(self.stages):
            block -= stage.depth
            if block < 0:
                return number
        return 0

    def ends_stage(self, block: int) -> bool:
        """Whether tokens change to the next stage's grid after this block."""
        return bool(self.stages) and block + 1 < self.depth and self.stage_of(block) != self.stage_of(block + 1)

    def stage_grid(self, stage: int) -> Grid:
        """The grid of a stage."""
        grid = self.grid
        for _ in range(stage):
            grid = grid.halved
        return grid

    def at(self, dim: int, grid: Grid) -> Geometry:
        """What a step sees that acts on tokens of width ``dim`` on ``grid``."""
        if not self.stages:
            return replace(self, grid=grid)
        stage = next(stage for stage in self.stages if stage.dim == dim)
        span = math.prod(min(w, n) for w, n in zip(stage.window, grid, strict=True))
        hidden = self.mlp_hidden * dim // self.dim
        head_dim = dim // stage.heads
        return replace(self, dim=dim, heads=stage.heads, head_dim=head_dim, mlp_hidden=hidden, grid=grid, span=span)

    def sites(self, site: str) -> StageSites | None:
        """Where steps of a kind of site act, None without stages.

        A step after the last block of a stage acts on the merged tokens, so on the next stage's grid.
        """
        if not self.stages:
            return None
        late = int(site == "after_block")
        stage = [self.stage_of(min(block + late, self.depth - 1)) for block in range(self.depth)]
        entries = tuple(stage.index(number) for number in range(1, len(self.stages)))
        reduced = tuple(block for block in range(self.depth) if stage[block] > 0)
        return StageSites(entries, reduced, tuple(self.stage_grid(number).patches for number in stage))
