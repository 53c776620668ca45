"""The sizes of a backbone that counting, planning and validating need: no weights."""

from __future__ import annotations

from dataclasses import dataclass

from tokred.tokens import Grid


@dataclass(frozen=True)
class Geometry:
    """Shape of a plain (non-hierarchical) transformer.

    Args:
        depth: number of blocks.
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
        return (batch, self.in_chans, t, h, w) if self.video else (batch, self.in_chans, h, w)
