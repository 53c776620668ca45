"""What one frame costs, by the counting rules of the official code and as it is run here.

Official: one per multiply-add, bias or addition; LayerNorm, softmax, GELU, norms of changes, sorting, gathers count
nothing; a gate costs a subtraction per element of its whole input, also where its choice is forced.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokred.backbones.geometry import Geometry
from tokred.streaming.blocks import GATES, GatedBlock, GateSettings
from tokred.streaming.products import recomputes

KEYS = (
    "linear_flops",
    "bias_flops",
    "matmul_flops",
    "add_flops",
    "einsum_flops",
    "gate_flops",
    "accumulator_flops",
)
"""The official counters."""


@dataclass(frozen=True)
class BlockSizes:
    """Sizes of one block on one frame.

    Args:
        tokens: entering; left: leaving (fewer where rows of attention are dropped); dim: C; inner: H * d; heads: H;
            hidden: width of the MLP.
        columns: keys M after pooling.
        span: (queries, keys) products of attention where it runs in windows, padding included; None = all with all.
        positions: (rows, columns) of the two tables of relative positions, key axis; None = there are none.
        queries: of all windows; None = the tokens. padded: windows reach beyond the grid.
    """

    tokens: int
    dim: int
    inner: int
    heads: int
    hidden: int
    columns: int
    left: int | None = None
    span: int | None = None
    positions: tuple[int, int] | None = None
    queries: int | None = None
    padded: bool = False


def frame_counts(block: GatedBlock, sizes: BlockSizes) -> dict[str, int]:
    """The official counters of one frame of all streams of a block, by key, after it ran.

    Args:
        block: its last frame; sizes: of the block.
    """
    sent = {name: int(chosen.counts.sum()) for name, chosen in block.chosen.items()}
    streams = _streams(block)
    flush = not block.chosen
    n, left, d, m = sizes.tokens, sizes.left or sizes.tokens, sizes.dim, sizes.columns
    rows = sent.get("qkv", streams * n)
    projected, fed = sent.get("projection", streams * left), sent.get("mlp", streams * left)
    counts = dict.fromkeys(KEYS, 0)
    counts["linear_flops"] = 3 * rows * d * sizes.inner + projected * sizes.inner * d + 2 * fed * d * sizes.hidden
    counts["bias_flops"] = 3 * rows * sizes.inner + projected * d + fed * (sizes.hidden + d)
    if sizes.padded:
        counts["bias_flops"] += 3 * sizes.inner  # the one vector that fills all padding
    counts["add_flops"] = 2 * streams * left * d
    counts["matmul_flops"] = _products(block, sizes, sent, streams)
    if sizes.positions is not None:
        queries = streams * (sizes.queries or n)
        counts["einsum_flops"] = queries * sizes.inner * sum(sizes.positions)
        counts["add_flops"] += 2 * sizes.heads * streams * (sizes.span or n * m)
    if not flush:
        counts["gate_flops"] = streams * (n + 2 * left) * d
        if block.settings.variant == "full":
            counts["gate_flops"] += streams * (m * sizes.inner + sizes.heads * left * m)
            counts["accumulator_flops"] = sent["value"] * sizes.inner + 2 * streams * left * sizes.inner
    return counts


def frame_macs(block: GatedBlock, sizes: BlockSizes) -> int:
    """Multiply-adds that the last frame of all streams ran here: linear layers and the two products.

    Rows that only fill a rectangle are counted too: they were computed.
    """
    streams = _streams(block)
    width = {name: streams * chosen.width for name, chosen in block.chosen.items()}
    rows, projected, fed = (width.get(name, streams * sizes.tokens) for name in GATES)
    linear = sizes.dim * (3 * rows * sizes.inner + projected * sizes.inner + 2 * fed * sizes.hidden)
    whole = sizes.tokens * sizes.columns
    qk = whole if block.settings.variant == "tokenwise" else block.query_key.pairs
    av = block.attention_value.pairs if block.settings.variant == "full" else whole
    return linear + streams * sizes.inner * (qk + av)


def planned_macs(settings: GateSettings, geometry: Geometry, n: int, columns: int, flush: bool) -> int:
    """Multiply-adds of one block on one frame of one stream, before it runs, for policies with a fixed number.

    With pooling the number of new columns follows the content; here it is the largest possible.

    Args:
        n: tokens; columns: keys after pooling; flush: a first frame.
    """
    inner = geometry.heads * geometry.head_dim
    r = n if flush else settings.policy.choose(torch.zeros(1, n)).width
    fresh = columns if flush else min(r, columns)
    linear = 4 * r * geometry.dim * inner + 2 * r * geometry.dim * geometry.mlp_hidden
    qk = av = n * columns
    if settings.variant != "tokenwise" and not recomputes(max(r, fresh), n):
        qk = r * columns + n * fresh
    if settings.variant == "full" and settings.refresh != 1 and not recomputes(fresh, columns):
        av = 2 * n * fresh
    return linear + inner * (qk + av)


def _products(block: GatedBlock, sizes: BlockSizes, sent: dict[str, int], streams: int) -> int:
    n, left, m = sizes.tokens, sizes.left or sizes.tokens, sizes.columns
    full_qk, full_av = streams * (sizes.span or n * m), streams * (sizes.span or left * m)
    qk, av = full_qk, full_av
    if block.chosen and block.settings.variant != "tokenwise":
        columns = _columns(block)
        qk = sent["qkv"] * m + n * columns
        if block.settings.variant == "full":
            av = 2 * left * sent["value"]
    return sizes.inner * (qk + av)


def _columns(block: GatedBlock) -> int:
    rows = block.chosen["qkv"]
    return int((rows if block.pooling is None else block.pooling.cells(rows)).counts.sum())


def _streams(block: GatedBlock) -> int:
    buffer = block.buffers["qkv"].value
    return 0 if buffer is None else buffer.shape[0]
