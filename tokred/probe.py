"""A lazy view of what a block computed. The main path stays fused attention; a statistic costs only when read."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from tokred import saliency
from tokred.advance import Move, follow
from tokred.precision import wide

STATISTICS = (
    "block_input",
    "query",
    "key",
    "value",
    "ffn",
    "class_row",
    "mean_query_row",
    "received",
    "entropy",
    "attention",
)
"""What a reducer may declare in ``Capabilities.needs``, besides "frames", "class_token" and "sample_seed"."""


WINDOW_STATISTICS = frozenset({"block_input", "query", "key", "value", "ffn", "received", "entropy"})
"""Those of them that exist where attention stays inside windows."""

NO_ATTENTION = "queries, keys and values do not exist at site before_block"


class BlockStatistics(Protocol):
    """Statistics of an attention that is not that of all tokens with all tokens."""

    def rows(self, q: Tensor, k: Tensor, scale: float, *, received: bool, entropy: bool) -> saliency.RowStatistics:
        """Received attention and negative row entropy per token, (B, N) each, of the tokens in the attention."""


class UndeclaredNeed(RuntimeError):
    """A reducer read a statistic that its capabilities do not declare."""


class Probe:
    """What a block computed, for one step of one forward.

    Args:
        block_input: (B, N, C) features entering the block.
        q, k, v: (B, H, N, d) as the attention used them (normalised where the host normalises); None before the
            block's attention ran.
        scale: factor on q k^T.
        prefix: prefix tokens in front.
        log_size: (B, N) bias that the attention carried, None when all masses are one.
        size: (B, N) masses, None = ones.
        needs: the statistics that may be read; None allows all.
        moves: reductions inside this block since its attention ran. Everything per token is taken through them, so
            statistics are those of the tokens that are left, among themselves.
        statistics: how to get attention statistics where attention is not that of all tokens with all tokens. They are
            taken through the moves like features.
        rows: statistics that the attention kernel has found already: received attention with the mass bias, entropies
            without. They hold until the first move.
    """

    def __init__(
        self,
        block_input: Tensor,
        q: Tensor | None = None,
        k: Tensor | None = None,
        v: Tensor | None = None,
        *,
        scale: float = 1.0,
        prefix: int = 0,
        log_size: Tensor | None = None,
        size: Tensor | None = None,
        needs: frozenset[str] | None = None,
        moves: tuple[Move, ...] = (),
        statistics: BlockStatistics | None = None,
        rows: saliency.Rows | None = None,
    ) -> None:
        self._block_input = block_input
        self._qkv = (q, k, v)
        self._ffn: Tensor | None = None
        self.scale = scale
        self.prefix = prefix
        self.log_size = log_size
        self.size = size
        self.needs = needs
        self._moves = moves
        self._statistics = statistics
        self._ready = None if moves else rows
        # A plain dict: functools.cached_property holds a lock up to Python 3.11, which torch.compile cannot trace.
        self._cache: dict[Any, Any] = {}

    @property
    def block_input(self) -> Tensor:
        """Features entering the block, (B, N, C)."""
        self._declared("block_input")
        return follow(self._block_input, self._moves)

    @property
    def q(self) -> Tensor:
        """Queries (B, H, N, d), before the scale."""
        self._declared("query")
        return self._part(0)

    @property
    def k(self) -> Tensor:
        """Keys (B, H, N, d)."""
        self._declared("key")
        return self._part(1)

    @property
    def v(self) -> Tensor:
        """Values (B, H, N, d)."""
        self._declared("value")
        return self._part(2)

    @property
    def ffn(self) -> Tensor:
        """Output of the MLP branch (B, N, C); only after the block."""
        self._declared("ffn")
        if self._ffn is None:
            raise UndeclaredNeed("the MLP output exists only at site after_block")
        return self._ffn

    def set_ffn(self, branch: Tensor) -> None:
        """Hand over the MLP branch's output, (B, N, C)."""
        self._ffn = branch

    @property
    def mean_key(self) -> Tensor:
        """Keys averaged over heads (B, N, d) in float32 or wider: the metric of ToMe and STA."""
        return self.head_mean("key")

    def head_mean(self, which: str) -> Tensor:
        """Queries, keys or values averaged over heads, (B, N, d), detached, float32 or wider."""
        part = {"query": 0, "key": 1, "value": 2}[which]
        self._declared(which)
        if not self._moves or part in self._cache or not all(move.linear for move, _ in self._moves):
            x = self._part(part).detach()
            return x.mean(dim=1, dtype=torch.promote_types(x.dtype, torch.float32))
        whole = self._qkv[part]
        if whole is None:
            raise UndeclaredNeed(NO_ATTENTION)
        # The mean first: the moves then carry one head's width instead of all.
        x = whole.detach()
        return follow(x.mean(dim=1, dtype=torch.promote_types(x.dtype, torch.float32)), self._moves)

    @property
    def class_row(self) -> Tensor:
        """Attention of the first prefix token to every token, mean over heads: (B, N). Differentiable.

        Raises:
            UndeclaredNeed: the backbone has no class token.
        """
        self._declared("class_row")
        if self.prefix < 1:
            raise UndeclaredNeed("class_row was read on a backbone without a class token")
        return self._row("class_row")

    @property
    def mean_query_row(self) -> Tensor:
        """Attention of the mean query of the patch tokens, mean over heads: (B, N). Differentiable."""
        self._declared("mean_query_row")
        return self._row("mean_query_row")

    @property
    def received(self) -> Tensor:
        """Received attention: column mean of the map over heads and rows (rows weighted by mass), (B, N), sums to 1."""
        self._declared("received")
        received = self._rows(self.log_size, "received").received
        assert received is not None
        return received

    @property
    def negative_entropy(self) -> Tensor:
        """sum_j P log P of each row of the head-averaged map without mass bias, (B, N), nats; higher = sharper."""
        self._declared("entropy")
        negative = self._rows(None, "entropy").negative_entropy
        assert negative is not None
        return negative

    @property
    def sharpness(self) -> Tensor:
        """``negative_entropy`` + log(keys): the divergence of each row from uniform attention, (B, N), nats, >= 0.

        Same order and differences, but not rounded to the precision of log(keys).
        """
        self._declared("entropy")
        sharpness = self._rows(None, "entropy").sharpness
        assert sharpness is not None
        return sharpness

    @property
    def attention(self) -> Tensor:
        """The full attention map (B, H, N, N)."""
        self._declared("attention")
        self._of_all_tokens("attention")
        if "attention" not in self._cache:
            self._cache["attention"] = saliency.attention_map(self._part(0), self._part(1), self.scale, self.log_size)
        return self._cache["attention"]

    def _row(self, name: str) -> Tensor:
        """Attention of one query: the class token's, or the mean of the patch tokens'."""
        self._of_all_tokens(name)
        if name not in self._cache:
            q = self._part(0)
            query = q[:, :, 0] if name == "class_row" else wide(q[:, :, self.prefix :]).mean(dim=2)
            self._cache[name] = saliency.attention_row(query, self._part(1), self.scale, self.log_size)
        return self._cache[name]

    def _rows(self, log_size: Tensor | None, part: str) -> saliency.Rows:
        """Statistics over all rows; one pass gives both when both are wanted and there is no mass bias."""
        ready = self._ready
        if ready is not None and (ready.received if part == "received" else ready.negative_entropy) is not None:
            return ready
        key = ("rows", log_size is None)
        if key not in self._cache:
            wanted = self.needs if self.needs is not None else frozenset({"received", "entropy"})
            biased = log_size is not None
            if self._statistics is not None:
                self._cache[key] = self._moved_rows(self._statistics, wanted)
                return self._cache[key]
            self._cache[key] = saliency.row_statistics(
                self._part(0),
                self._part(1),
                self.scale,
                received="received" in wanted and (biased or self.log_size is None),
                entropy="entropy" in wanted and not biased,
                log_size=log_size,
                row_mass=self.size,
            )
        return self._cache[key]

    def _moved_rows(self, statistics: BlockStatistics, wanted: frozenset[str]) -> saliency.RowStatistics:
        q, k, _ = self._qkv
        if q is None or k is None:
            raise UndeclaredNeed(NO_ATTENTION)
        rows = statistics.rows(q, k, self.scale, received="received" in wanted, entropy="entropy" in wanted)
        return saliency.RowStatistics(
            *(None if row is None else follow(row[..., None], self._moves)[..., 0] for row in rows)
        )

    def _of_all_tokens(self, name: str) -> None:
        if self._statistics is not None:
            raise UndeclaredNeed(f"{name} does not exist here: the attention is not that of all tokens with all tokens")

    def _part(self, which: int) -> Tensor:
        part = self._qkv[which]
        if part is None:
            raise UndeclaredNeed(NO_ATTENTION)
        if not self._moves:
            return part
        if which not in self._cache:
            flat = follow(part.transpose(1, 2).flatten(2), self._moves)  # (B, M, H * d)
            self._cache[which] = flat.unflatten(2, (part.shape[1], part.shape[3])).transpose(1, 2)
        return self._cache[which]

    def _declared(self, name: str) -> None:
        if self.needs is not None and name not in self.needs:
            raise UndeclaredNeed(f"{name} is not declared in the reducer's needs {sorted(self.needs)}")
