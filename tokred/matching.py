"""Similarity, bipartite matching and reproducible noise, shared by methods.

Decisions are taken in float32 or wider and ties go to the earlier token.
Notation: B batch, N tokens (prefix included), d metric width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.precision import full_precision, wide
from tokred.ranking import ranking

BLOCK_ELEMENTS = 1 << 24
"""Similarities held at once by ``best_match``: 64 MiB in float32."""


class Matching(NamedTuple):
    """A bipartite matching as an integer map.

    Args:
        assign: (B, N) output position of every input token.
        n_out: number of output tokens.
        unmerged: (B, E - r) kept sources, in output order; source: (B, r) merged sources, best first; both as
            positions among the even tokens. destination: (B, r) of those sources, among the odd tokens.
    """

    assign: Tensor
    n_out: int
    unmerged: Tensor
    source: Tensor
    destination: Tensor


def unit(metric: Tensor) -> Tensor:
    """Rows of length one, (..., d) float32 or wider; a zero row stays zero (upstream: NaN)."""
    return F.normalize(wide(metric), dim=-1, eps=torch.finfo(torch.float32).tiny)


def best_match(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of a (B, Na, d) the largest product with a row of b (B, Nb, d), and which: both (B, Na).

    The Na x Nb similarities are computed in row tiles when they would not fit ``BLOCK_ELEMENTS``.
    """
    with full_precision(a):
        return _best_match(a, b)


def _best_match(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    rows = max(1, BLOCK_ELEMENTS // max(1, a.shape[0] * b.shape[1]))
    keys = b.transpose(1, 2)
    if rows >= a.shape[1]:
        best, which = (a @ keys).max(dim=-1)
        return best, which
    tiles = [(tile @ keys).max(dim=-1) for tile in a.split(rows, dim=1)]
    return torch.cat([t.values for t in tiles], dim=1), torch.cat([t.indices for t in tiles], dim=1)


@torch.no_grad()
def match_halves(metric: Tensor, r: int, prefix: int = 0, *, in_position: bool = False) -> Matching:
    """ToMe's matching: even positions propose to odd ones, the r best proposals are merged.

    Args:
        metric: (B, N, d); cosine similarity is used.
        r: tokens to merge, 0 <= r <= (N - prefix) // 2.
        prefix: tokens in front that neither merge nor receive.
        in_position: unmerged tokens in position order also without prefix tokens (vid-TLDR).
    Returns:
        Output order: prefix tokens, unmerged even tokens, odd tokens in position order. Unmerged tokens are in
        position order if there are prefix tokens, else by descending similarity: later steps split this order by
        parity, so it is part of the method (ToMe, merge.py; official for 0, 1 and 2 prefix tokens).
    """
    b, n, _ = metric.shape
    metric = unit(metric)
    even, odd = metric[:, ::2], metric[:, 1::2]
    odd_front = prefix // 2
    best, which = best_match(even, odd[:, odd_front:])
    which = which + odd_front
    front = (prefix + 1) // 2
    if front:
        best[:, :front] = float("-inf")
    order = ranking(best, descending=True)
    source, unmerged = order[:, :r], order[:, r:]
    if prefix or in_position:
        unmerged = unmerged.sort(dim=1).values
    destination = which.gather(1, source)
    ne, no = even.shape[1], odd.shape[1]
    # Output position of each even and odd token: prefix in front, then unmerged even, then odd.
    even_place = torch.empty(b, ne, dtype=torch.int64, device=metric.device)
    ranks = torch.arange(ne - r, device=metric.device)
    if prefix:
        ranks = torch.where(ranks < front, 2 * ranks, ranks + odd_front)
    even_place.scatter_(1, unmerged, ranks.expand(b, ne - r))
    odds = torch.arange(no, device=metric.device)
    odd_place = torch.where(odds < odd_front, 2 * odds + 1, odds + ne - r)
    even_place.scatter_(1, source, odd_place[destination])
    assign = torch.empty(b, n, dtype=torch.int64, device=metric.device)
    assign[:, ::2] = even_place
    assign[:, 1::2] = odd_place
    return Matching(assign, n - r, unmerged, source, destination)


@torch.no_grad()
def match_every_kth(metric: Tensor, k: int) -> tuple[Tensor, int]:
    """ToMe's other matching: every k-th token is a destination, all others merge into their best one.

    Args:
        metric: (B, N, d); tokens behind the last full run of k are lost, as upstream.
    Returns:
        assign (B, N) with -1 for lost tokens, and the number of destinations N // k.
    """
    b, n, d = metric.shape
    full = n // k * k
    runs = unit(metric[:, :full]).reshape(b, full // k, k, d)
    sources, targets = runs[:, :, :-1].reshape(b, -1, d), runs[:, :, -1]
    _, which = best_match(sources, targets)
    runs_of = which.reshape(b, full // k, k - 1)
    own = torch.arange(full // k, device=metric.device).expand(b, -1)[..., None]
    assign = torch.cat([runs_of, own], dim=2).flatten(1)
    return F.pad(assign, (0, n - full), value=-1), full // k


def noise(sample_seed: Tensor, n: int, *salt: int) -> Tensor:
    """Uniform-looking integers (B, n) int64 in [0, 2^31), a pure function of the sample, the salt and the place.

    Touches no random state; the same on every device, batch and thread count (integer arithmetic only).

    Args:
        sample_seed: (B,) int64; salt: e.g. the user's seed and the block.
    """
    place = torch.arange(n, device=sample_seed.device)[None]
    state = _scramble(sample_seed)[:, None]
    for value in salt:
        state = _scramble(state ^ (value & 0x7FFFFFFF))
    return _scramble(_scramble(state ^ place)) >> 1


def _scramble(x: Tensor) -> Tensor:
    """A 32-bit integer hash (two multiply-xorshift rounds) held in int64: factors below 2^31, so nothing overflows."""
    mask = 0xFFFFFFFF
    x = (x ^ (x >> 32)) & mask
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & mask
    x = ((x ^ (x >> 15)) * 0x45D9F3B) & mask
    return x ^ (x >> 16)
