"""What flows through a backbone: the patch grid and the tokens on it.

Notation: B batch, N tokens (prefix included), C width, T x H x W patch grid, P = T*H*W patches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokred.cover import Cover
    from tokred.light import Light


class Grid(NamedTuple):
    """Shape of the original patch grid: time (tubelets), rows, columns. An image has t = 1."""

    t: int
    h: int
    w: int

    @property
    def patches(self) -> int:
        """Number of patches, T*H*W."""
        return self.t * self.h * self.w

    @property
    def per_frame(self) -> int:
        """Patches per tubelet, H*W."""
        return self.h * self.w

    @property
    def halved(self) -> Grid:
        """The grid after 2 x 2 patch merging: rows and columns halved, rounded up."""
        return Grid(self.t, (self.h + 1) // 2, (self.w + 1) // 2)


@dataclass(frozen=True)
class Tokens:
    """The tokens between two steps of a backbone, with what is known about them.

    Args:
        x: features, (B, N, C); the first ``prefix`` tokens are class, distillation or register tokens.
        grid: the patch grid: the original one, or that of the current stage of a hierarchical host.
        prefix: number of prefix tokens; never reduced.
        class_token: whether the first prefix token is a class token (else they are all registers).
        size: mass of each token in patches, (B, N) float32, or None while every mass is one.
        groups: number of equal consecutive temporal groups of the patch tokens (T for a fresh clip), or
            None once the tokens are no longer in such groups.
        source: (B, P) int64, position (prefix included) of the token that carries each original patch,
            -1 = dropped; None unless tracing was asked for.
        sample_seed: (B,) int64 derived from the bits of each sample alone, for random reducers; None unless
            the reducer declares that it needs it.
        cover: the tokens on the places of ``grid``, on hosts that compute on whole grids; else None.
        policy: (B, N) float, 1 = seen by attention and pooling, 0 = masked: how learned methods drop tokens in
            training, where gradients must reach the decision. None = all seen.
        aside: tokens that a step set aside for a later one to bring back; None = none.
        light: which tokens get a light path instead of the MLP, and which path; None = all get the MLP.
    """

    x: Tensor
    grid: Grid
    prefix: int = 0
    size: Tensor | None = None
    groups: int | None = None
    source: Tensor | None = None
    sample_seed: Tensor | None = None
    class_token: bool = True
    cover: Cover | None = None
    policy: Tensor | None = None
    aside: Tokens | None = None
    light: Light | None = None

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token."""
        return self.class_token and self.prefix > 0

    @property
    def count(self) -> int:
        """Number of tokens N, prefix included."""
        return self.x.shape[1]

    @property
    def patch_count(self) -> int:
        """Number of tokens that are not prefix tokens."""
        return self.x.shape[1] - self.prefix

    @property
    def fed(self) -> int:
        """Number of tokens that get a whole MLP, prefix included; in training all are counted."""
        return self.count if self.light is None or self.light.order is None else self.light.whole

    @property
    def patches(self) -> Tensor:
        """Features of the tokens that are not prefix tokens, (B, N - prefix, C), a view."""
        return self.x[:, self.prefix :]

    @property
    def masses(self) -> Tensor:
        """Mass of each token in patches, (B, N) float32; ones when none were merged."""
        if self.size is not None:
            return self.size
        return torch.ones(self.x.shape[:2], dtype=torch.float32, device=self.x.device)

    def by_frame(self, groups: int | None = None) -> Tensor:
        """Patch tokens as (B, groups, S, C) without a copy.

        Args:
            groups: number of temporal groups; default: the groups the tokens are in.
        Raises:
            ValueError: the tokens are not in equal temporal groups that ``groups`` divides.
        """
        wanted = self.groups if groups is None else groups
        if self.groups is None or wanted is None:
            raise ValueError("tokens are not in equal temporal groups: a reducer without keeps_frames ran before")
        if wanted < 1 or self.groups % wanted:
            raise ValueError(f"{self.groups} temporal groups cannot be read as {wanted}: it must divide {self.groups}")
        b, _, c = self.x.shape
        return self.patches.reshape(b, wanted, self.patch_count // wanted, c)

    def with_x(self, x: Tensor) -> Tokens:
        """The same tokens with new features of the same shape (B, N, C)."""
        return replace(self, x=x)


def sample_seeds(clips: Tensor) -> Tensor:
    """One int64 per sample from that sample alone, equal on every device and thread count: its values in fixed point,
    added as integers, whose order does not matter.

    Args:
        clips: model input, (B, ...), any floating dtype.
    Returns:
        (B,) int64.
    """
    fixed = clips.detach().flatten(1).float().nan_to_num().mul(1 << 16).clamp(-(2.0**40), 2.0**40)
    return fixed.to(torch.int64).sum(dim=1)


def spread(seeds: Tensor, count: int) -> Tensor:
    """Seeds of samples (B,) for ``count`` = B * T steps of them, (count,), different for each step of a sample."""
    steps = count // max(len(seeds), 1)
    if steps == 1:
        return seeds
    return (seeds[:, None] + torch.arange(steps, device=seeds.device)).flatten()
