"""A drawn example in a dozen numbers: small to print, to shrink and to type in again."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tokred.backbones.geometry import Geometry, Stage
from tokred.tokens import Grid

WINDOW = (2, 2, 2)
STAGE_DEPTHS = (1, 2, 1)


@dataclass(frozen=True, repr=False)
class StepExample:
    """Tokens with what a block computed for them, and how strong a reducer is: everything that one step looks at.

    The content follows from these numbers alone, so ``tokred.testing.check_step(reducer, StepExample(...))`` sees
    exactly what a search saw.

    Args:
        grid: patch grid (T, H, W).
        batch: samples B.
        prefix: class and register tokens in front; class_token: whether the first of them is a class token.
        dim: width C; heads: attention heads, a divisor of it.
        depth: blocks.
        windows: a hierarchical host with windows and stages of 1, 2 and 1 blocks instead of ``depth`` equal ones.
        gone: patch tokens of each temporal group that earlier steps took away.
        frames: whether the tokens are still in temporal groups.
        masses, features, attention: a kind of ``tokred.testing.content``.
        strength: of the reducer's range, in eighths (or parts of one): 0 = weakest, 8 = strongest; None = as it is
            given.
        step: which of the reducer's steps, by its number, alone (or behind its own earlier ones, where it needs what
            those set aside); None = all blocks from the first, as hosts with stages always run.
        seed: another seed, other numbers of the same kinds.
    """

    grid: tuple[int, int, int] = (1, 1, 2)
    batch: int = 1
    prefix: int = 0
    class_token: bool = False
    dim: int = 4
    heads: int = 1
    depth: int = 4
    windows: bool = False
    gone: int = 0
    frames: bool = True
    masses: str = "none"
    features: str = "normal"
    attention: str = "normal"
    strength: float | None = None
    step: int | None = 0
    seed: int = 0

    def __repr__(self) -> str:
        """The call that makes it, without what is as by default."""
        own = [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]
        return f"StepExample({', '.join(f'{name}={value!r}' for name, value in own)})"

    @staticmethod
    def like(geometry: Geometry, *, batch: int = 2, seed: int = 0) -> StepExample:
        """An example of the sizes of a host, with all blocks and ordinary content."""
        return StepExample(
            grid=(geometry.grid.t, geometry.grid.h, geometry.grid.w),
            batch=batch,
            prefix=geometry.prefix,
            class_token=geometry.class_token,
            dim=geometry.dim,
            heads=geometry.heads,
            depth=geometry.depth,
            windows=bool(geometry.stages),
            step=None,
            seed=seed,
        )

    @property
    def patches(self) -> int:
        """Patch tokens that are there."""
        grid = Grid(*self.grid)
        return grid.t * (grid.per_frame - self.gone)

    @property
    def geometry(self) -> Geometry:
        """The host that such tokens are in."""
        stages: tuple[Stage, ...] = ()
        if self.windows:
            stages = tuple(Stage(depth, self.dim << i, self.heads, WINDOW) for i, depth in enumerate(STAGE_DEPTHS))
        return Geometry(
            depth=sum(STAGE_DEPTHS) if self.windows else self.depth,
            dim=self.dim,
            heads=self.heads,
            head_dim=self.dim // self.heads,
            mlp_hidden=2 * self.dim,
            grid=Grid(*self.grid),
            prefix=self.prefix,
            classes=2,
            kernel=(1, 1, 1),
            video=self.grid[0] > 1,
            class_token=self.class_token,
            stages=stages,
            embed_norm=self.windows,
        )
