"""What features and attention can look like, ordinary and degenerate: the content of drawn examples, by name."""

from __future__ import annotations

import torch
from torch import Tensor

FEATURES = ("normal", "constant", "zero", "duplicated", "near_ties", "tiny", "huge")
"""Kinds of features (B, N, C): independent; all tokens equal; all zero; each token twice; equal up to a ten-thousandth;
of size 1e-12; of size 1e15, or 1e4 in half precision."""

ATTENTION = ("normal", "uniform", "one_hot", "zero_rows", "near_ties", "huge")
"""Kinds of attention maps: independent queries and keys; every row uniform; every row on one key; some keys zero and
the others so large that attention underflows to exact zeros; queries and keys equal up to a ten-thousandth; logits of
size 1e8."""

MASSES = ("none", "ones", "mixed")
"""Kinds of masses: not kept yet; kept and all one; between one and five patches."""

NEAR = 1e-4
"""Cosines of such vectors differ by its square: a tie in float32, and none in float64."""

HUGE = 1e15
HALF = 1e4
"""What fits into float16 with room for the tails of a normal distribution."""


def generator(*salt: int) -> torch.Generator:
    """A generator of its own for a few numbers: no global random state is touched."""
    state = 0
    for value in salt:
        state = (state * 1_000_003 + value + 1) % (1 << 62)
    return torch.Generator().manual_seed(state)


def features(kind: str, shape: tuple[int, int, int], random: torch.Generator, *, huge: float = HUGE) -> Tensor:
    """Features of tokens, finite.

    Args:
        kind: one of ``FEATURES``; shape: (B, N, C); huge: the size of the huge ones.
    Returns:
        (B, N, C) float64.
    Raises:
        ValueError: another kind.
    """
    b, n, c = shape
    x = torch.randn(b, n, c, generator=random, dtype=torch.float64)
    if kind == "normal":
        return x
    if kind == "constant":
        return x[:, :1].expand(b, n, c).clone() if n else x
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "duplicated":
        return x[:, torch.arange(n) // 2]
    if kind == "near_ties":
        return x[:, :1] + NEAR * x if n else x
    if kind == "tiny":
        return 1e-12 * x
    if kind == "huge":
        return huge * x
    raise ValueError(f"features = {kind!r} is not one of {', '.join(FEATURES)}")


def queries_and_keys(
    kind: str, shape: tuple[int, int, int, int], random: torch.Generator, *, huge: float = HUGE
) -> tuple[Tensor, Tensor]:
    """Queries and keys whose attention, with logits q k^T / sqrt(d), is of a kind.

    Args:
        kind: one of ``ATTENTION``; shape: (B, H, N, d); huge: no entry is larger, times four.
    Returns:
        q, k: (B, H, N, d) float64 each.
    Raises:
        ValueError: another kind.
    """
    q, k = torch.randn(2, *shape, generator=random, dtype=torch.float64)
    n = shape[2]
    if kind == "normal" or n == 0:
        return q, k
    if kind == "uniform":
        return torch.zeros_like(q), k
    if kind == "one_hot":
        order = torch.randperm(n, generator=random)
        k = 10 * torch.nn.functional.normalize(k, dim=-1)
        return 100 * k[:, :, order], k
    if kind == "zero_rows":
        empty = torch.rand(n, generator=random) < 0.5
        return 100 * q, torch.where(empty[:, None], 0.0, 10 * k)
    if kind == "near_ties":
        return q[:, :, :1] + NEAR * q, k[:, :, :1] + NEAR * k
    if kind == "huge":
        return min(huge, HALF) * q, min(huge, HALF) * k
    raise ValueError(f"attention = {kind!r} is not one of {', '.join(ATTENTION)}")


def masses(kind: str, batch: int, prefix: int, patches: int, random: torch.Generator) -> Tensor | None:
    """Masses in patches, (B, prefix + patches) float32; prefix tokens weigh one; None = not kept yet.

    Args:
        kind: one of ``MASSES``.
    Raises:
        ValueError: another kind.
    """
    if kind not in MASSES:
        raise ValueError(f"masses = {kind!r} is not one of {', '.join(MASSES)}")
    if kind == "none":
        return None
    size = torch.ones(batch, prefix + patches)
    if kind == "mixed":
        size[:, prefix:] = torch.randint(1, 6, (batch, patches), generator=random).float()
    return size
