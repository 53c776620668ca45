"""The two products of attention, kept up to date instead of computed again.

Both are recomputed from scratch where the update would cost as much: from half of the rows on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.precision import full_precision, wide
from tokred.streaming.gates import COLUMN, ROW
from tokred.streaming.places import keep, read, silenced, write
from tokred.streaming.policies import Chosen


class QueryKey:
    """Q K^T of the current queries and keys: rows of new queries, columns of new keys."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def __call__(self, q: Tensor, k: Tensor, rows: Chosen | None, columns: Chosen | None, scale: float = 1.0) -> Tensor:
        """The product after this frame, (B, H, N, M). It is state: do not write on it.

        Args:
            q: (B, H, N, d) all current queries; k: (B, H, M, d) all current keys.
            rows, columns: which queries and keys are new since the last frame; None = all.
            scale: factor on the product.
        """
        if self.value is None or rows is None or columns is None or 2 * max(rows.width, columns.width) >= q.shape[2]:
            product = (q * scale) @ k.transpose(-2, -1)
            self.value = keep(product)
            return product
        product = write(self.value, rows, (read(q, rows.index, ROW) * scale) @ k.transpose(-2, -1), ROW)
        product = write(product, columns, q @ (read(k, columns.index, ROW) * scale).transpose(-2, -1), COLUMN)
        self.value = keep(product)
        return product


class AttentionValue:
    """A V, where of a new A and V only some columns and rows are let through: the rest of A stays as it was.

    The official code adds A_n (V_n - V_o) and (A_n - A_o) V_o; here the same sum is A_n V_n - A_o V_o. It is kept in
    float32 or wider whatever the model computes in: in half precision it drifts, by 0.01 (float16) to 0.1 (bfloat16)
    over 200 frames.

    Args:
        cast: precision in which A and V enter and are remembered, None = as they come.
    """

    def __init__(self, cast: torch.dtype | None = None) -> None:
        self.cast = cast
        self.attention: Tensor | None = None
        self.value: Tensor | None = None

    def __call__(
        self, attention: Tensor, v: Tensor, chosen: Chosen | None, v_new: Tensor | None, v_old: Tensor | None
    ) -> Tensor:
        """The product after this frame, (B, H, N, d), float32 or wider. It is state: do not write on it.

        Args:
            attention: (B, H, N, M) the current map; v: (B, H, M, d) the values as they were sent.
            chosen: columns of the map and rows of the values that are let through; None = all: from scratch.
            v_new, v_old: (B, H, K, d) those rows now and before; None with ``chosen`` None.
        """
        attention = attention if self.cast is None else attention.to(self.cast)
        if self.value is None or self.attention is None or chosen is None or v_new is None or v_old is None:
            self.attention = attention.detach().clone()
            return self._scratch(attention, v)
        new = read(attention, chosen.index, COLUMN)
        if 2 * chosen.width >= attention.shape[-1]:
            used = write(self.attention, chosen, new, COLUMN)
            self.attention = keep(used)
            return self._scratch(used, v)
        old = read(self.attention, chosen.index, COLUMN)
        self.attention = write(self.attention, chosen, new.detach(), COLUMN)
        added = self._product(silenced(new, chosen, COLUMN), v_new)
        removed = self._product(silenced(old, chosen, COLUMN), v_old)
        if added.requires_grad:
            product = self.value + added - removed
            self.value = keep(product)
            return product
        self.value.add_(added).sub_(removed)
        return self.value

    def _scratch(self, attention: Tensor, v: Tensor) -> Tensor:
        product = self._product(attention, v)
        self.value = keep(product)
        return product

    def _product(self, attention: Tensor, v: Tensor) -> Tensor:
        v = v if self.cast is None else v.to(self.cast)
        with full_precision(attention):
            return wide(attention) @ wide(v)
