"""A transformer block as the operations that act on each token alone, for methods that compute only some tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

Rows = Callable[[Tensor], Tensor]
"""An operation on tokens (B, n, C) that treats each by itself, whatever n is."""


@dataclass(frozen=True)
class BlockParts:
    """A pre-norm block, y = x + project(attention(qkv(norm1(x)))), out = y + feed(norm2(y)), taken apart.

    Args:
        norm1, norm2: the norms, (B, n, C) -> (B, n, C).
        qkv: normalised tokens to queries, keys and values, (B, n, 3 * H * d) in that order, as attention uses them.
        project: attention output (B, n, H * d) to the residual branch (B, n, C), layer scale included.
        feed: normalised tokens to the other residual branch (B, n, C), layer scale included.
        heads: H; head_dim: d; scale: factor on q k^T.
        bias: from queries (B, H, N, d) to what is added to the logits, (B, H, N, M); None = nothing.
        attend: attention of all tokens where it is not that of all with all, e.g. in windows: (B, N, 3 * H * d) to
            (B, N, H * d). Such blocks have no products to keep up to date.
    """

    norm1: Rows
    qkv: Rows
    project: Rows
    norm2: Rows
    feed: Rows
    heads: int
    head_dim: int
    scale: float
    bias: Callable[[Tensor], Tensor] | None = None
    attend: Callable[[Tensor], Tensor] | None = None

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, n, 3 * H * d) to q, k, v (B, H, n, d), views."""
        b, n, _ = qkv.shape
        q, k, v = qkv.reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def whole(self, x: Tensor) -> Tensor:
        """The block on all tokens, (B, N, C)."""
        y = x + self.project(self.attention(self.qkv(self.norm1(x))))
        return y + self.feed(self.norm2(y))

    def attention(self, qkv: Tensor) -> Tensor:
        """Attention of all tokens, (B, N, 3 * H * d) to (B, N, H * d), fused where there is no bias."""
        if self.attend is not None:
            return self.attend(qkv)
        q, k, v = self.split(qkv)
        mask = None if self.bias is None else self.bias(q)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.scale).transpose(1, 2).flatten(2)
