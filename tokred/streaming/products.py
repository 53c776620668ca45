"""The two products of attention, kept up to date instead of computed again.

Both are recomputed from scratch where the update would cost as much: from half of the rows on. Maps are stored with the
keys first, (B, H, M, N), so that what changes with a key is a row: contiguous in memory.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.precision import full_precision, wide
from tokred.streaming.gates import COLUMN, ROW
from tokred.streaming.places import keep, read, sealed, silenced, write
from tokred.streaming.policies import Chosen


def recomputes(width: int, total: int) -> bool:
    """Whether a product is computed from scratch because an update of ``width`` of ``total`` would cost as much."""
    return 2 * width >= total


class QueryKey:
    """K Q^T of the current keys and queries: rows of new keys, columns of new queries.

    Attributes:
        pairs: pairs of a query and a key that the last frame computed, per stream and head.
    """

    def __init__(self) -> None:
        self.value: Tensor | None = None
        self.pairs = 0

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        queries: Chosen | None,
        keys: Chosen | None,
        scale: float = 1.0,
    ) -> Tensor:
        """The product after this frame, (B, H, M, N). It is state: do not write on it.

        Args:
            q: (B, H, N, d) all current queries; k: (B, H, M, d) all current keys.
            queries, keys: which of them are new since the last frame; None = all.
            scale: factor on the product.
        """
        n, m = q.shape[2], k.shape[2]
        if self.value is None or queries is None or keys is None or recomputes(max(queries.width, keys.width), n):
            product = k @ (q * scale).transpose(-2, -1)
            self.value = keep(product)
            self.pairs = n * m
            return product
        columns = k @ (read(q, queries.index, ROW) * scale).transpose(-2, -1)
        rows = (read(k, keys.index, ROW) * scale) @ q.transpose(-2, -1)
        product = write(write(self.value, queries, columns, COLUMN), keys, rows, ROW)
        self.value = keep(product)
        self.pairs = queries.width * m + n * keys.width
        return product


class AttentionValue:
    """A V, where of a new A and V only some columns and rows are let through: the rest of A stays as it was.

    The official code adds A_n (V_n - V_o) and (A_n - A_o) V_o; here the same sum is A_n V_n - A_o V_o. It is kept in
    float32 or wider whatever the model computes in: in half precision it drifts, by 0.01 (float16) to 0.1 (bfloat16)
    over 200 frames.

    Args:
        cast: precision in which A and V enter and are remembered, None = as they come.
    Attributes:
        pairs: pairs of a row and a column of A that the last frame multiplied, per stream and head.
    """

    def __init__(self, cast: torch.dtype | None = None) -> None:
        self.cast = cast
        self.attention: Tensor | None = None
        self.value: Tensor | None = None
        self.pairs = 0

    def __call__(
        self, attention: Tensor, v: Tensor, chosen: Chosen | None, v_new: Tensor | None, v_old: Tensor | None
    ) -> Tensor:
        """The product after this frame, (B, H, N, d), float32 or wider. It is state: do not write on it.

        Args:
            attention: (B, H, M, N) the current map, keys first; v: (B, H, M, d) the values as they were sent.
            chosen: keys whose weights and values are let through; None = all: from scratch.
            v_new, v_old: (B, H, K, d) their values now and before; None with ``chosen`` None.
        """
        attention = attention if self.cast is None else attention.to(self.cast)
        if self.value is None or self.attention is None or chosen is None or v_new is None or v_old is None:
            self.attention = attention.detach().clone()
            return self._scratch(attention, v)
        new = read(attention, chosen.index, ROW)
        if recomputes(chosen.width, attention.shape[2]):
            used = write(self.attention, chosen, new, ROW)
            self.attention = keep(used)
            return self._scratch(used, v)
        self.pairs = 2 * attention.shape[3] * chosen.width
        old = read(self.attention, chosen.index, ROW)
        self.attention = write(self.attention, chosen, new.detach(), ROW)
        added = self._product(silenced(new, chosen, ROW), v_new)
        removed = self._product(silenced(old, chosen, ROW), v_old)
        if added.requires_grad or sealed(self.value):
            product = self.value + added - removed
            self.value = keep(product)
            return product
        self.value.add_(added).sub_(removed)
        return self.value

    def _scratch(self, attention: Tensor, v: Tensor) -> Tensor:
        product = self._product(attention, v)
        self.value = keep(product)
        self.pairs = attention.shape[2] * attention.shape[3]
        return product

    def _product(self, attention: Tensor, v: Tensor) -> Tensor:
        v = v if self.cast is None else v.to(self.cast)
        with full_precision(attention):
            return wide(attention).transpose(-2, -1) @ wide(v)
