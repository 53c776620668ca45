"""Small random subsets, partitions, features and weights, drawn from seeds."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

SEEDS = st.integers(0, 10_000)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 4))  # B, N, C


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kept(b: int, n: int, seed: int, least: int = 1) -> Tensor:
    g = generator(seed)
    count = int(torch.randint(least, n + 1, (1,), generator=g)) if n >= least else n
    return torch.stack([torch.randperm(n, generator=g)[:count] for _ in range(b)])


def partition(b: int, n: int, seed: int) -> tuple[Tensor, int]:
    """Output places of n tokens, every place taken at least once."""
    g = generator(seed)
    m = int(torch.randint(1, n + 1, (1,), generator=g))
    rows = []
    for _ in range(b):
        places = torch.cat([torch.arange(m), torch.randint(0, m, (n - m,), generator=g)])
        rows.append(places[torch.randperm(n, generator=g)])
    return torch.stack(rows), m


def features(b: int, n: int, c: int, seed: int) -> Tensor:
    return torch.randn(b, n, c, generator=generator(seed + 1))


def weights(b: int, n: int, seed: int) -> Tensor:
    return torch.rand(b, n, generator=generator(seed + 2)) + 0.1
