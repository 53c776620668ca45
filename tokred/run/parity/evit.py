"""Replay of EViT's function-level vectors: one block, and the training schedule of the keep rate."""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.advance import advance
from tokred.backbones.timm_vit import TimmViTAdapter
from tokred.gather import take
from tokred.methods.evit import EViT, shrinking_rate
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Fuse, Reduction
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import NORM_EPS, timm_block
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed
from tokred.saliency import attention_map, row_statistics
from tokred.tokens import Grid, Tokens

FUSED = 1e-6
RATES = ("iters", "epoch", "warmup_epochs", "total_epochs", "iters_per_epoch")


@torch.no_grad()
def function(golden: Golden, ledger: Ledger) -> None:
    """One block: its attention, the class row, kept and other tokens, the fused token, the MLP's input and output."""
    settings = golden.settings
    q, k, v = (golden.floats(name, dims=4) for name in "qkv")
    x = golden.floats("x_in", dims=3)
    b, n, dim = x.shape
    for name, size in (("B", b), ("N", n), ("C", dim), ("num_heads", q.shape[1])):
        settings.agree(name, size)
    settings.agree("scale", "head_dim**-0.5", "the shapes")
    scale = q.shape[3] ** -0.5
    fuse = settings.flag("fuse_token")
    reducer = _reducer(golden, fuse)
    probe = Probe(x, q, k, v, scale=scale, prefix=1, needs=reducer.capabilities.needs)
    tokens = Tokens(x, Grid(1, 1, n - 1), prefix=1)
    reduction = reducer.reduce(tokens, probe, Site(reducer.site, reducer.schedule.steps(1)[0], 1, 1))

    noop = reduction is None
    ledger.counts("noop", noop, settings.flag("noop", noop))
    after = tokens if reduction is None else advance(tokens, reduction)
    kept = after.patch_count - int(isinstance(reduction, Fuse))
    ledger.counts("left_tokens", kept, settings.whole("left_tokens", kept))
    ledger.counts("n_tokens_out", after.patch_count, settings.whole("n_tokens_out", after.patch_count))
    if "attn" in golden:
        ledger.value("attn", attention_map(q, k, scale), golden.floats("attn"))
    if "cls_attn" in golden:
        ledger.value("cls_attn", probe.class_row[:, 1:], golden.floats("cls_attn"))
    if "derived.col_mean" in golden:
        received = row_statistics(q, k, scale).received
        assert received is not None
        ledger.value("derived.col_mean", received, golden.floats("derived.col_mean"))
    ledger.counts("has idx", not noop, "idx" in golden)
    if reduction is not None:
        decided(golden, ledger, "", reduction)
        ledger.bits("kept rows", golden.floats("x_out")[:, : 1 + kept], take(x, kept_positions(reduction)))
    if "compl" in golden:
        ledger.decision("compl", _others(reduction, n), golden.indices("compl"))
    if "fused_token" in golden:
        ledger.fused("fused_token", after.x[:, -1:], golden.floats("fused_token"), FUSED)
    ledger.value("x_out", after.x, golden.floats("x_out"))
    _block(golden, ledger, reducer)


def decided(golden: Golden, ledger: Ledger, prefix: str, reduction: Reduction) -> None:
    """The kept tokens in score order, relative to the tokens behind the class token."""
    ledger.decision(f"{prefix}idx", kept_positions(reduction)[:, 1:] - 1, golden.indices(f"{prefix}idx"))


def kept_positions(reduction: Reduction) -> Tensor:
    """Positions that EViT keeps, the class token's in front: (B, 1 + K)."""
    index = getattr(reduction, "index", None)
    if not isinstance(index, Tensor):
        raise Malformed(f"EViT made a {type(reduction).__name__} where it must keep a subset")
    return index


def schedule(golden: Golden, ledger: Ledger) -> None:
    """The keep rate over training iterations."""
    settings = golden.settings
    whole, rates, theirs = golden.indices("ints", 2), golden.floats("rates", 2), golden.floats("keep_rate", 1)
    columns = settings.items("columns_ints", list(RATES))
    if sorted(columns) != sorted(RATES) or whole.shape[1] != len(RATES):
        raise Malformed(f"columns_ints = {columns} are not {', '.join(RATES)}")
    rate_columns = settings.items("columns_rates", ["base_keep_rate", "max_keep_rate"])
    if sorted(rate_columns) != ["base_keep_rate", "max_keep_rate"] or rates.shape[1] != 2:
        raise Malformed(f"columns_rates = {rate_columns} are not base_keep_rate and max_keep_rate")
    ours = []
    for row, rate in zip(whole.tolist(), rates.tolist(), strict=True):
        at, given = dict(zip(columns, row)), dict(zip(rate_columns, rate))
        ours.append(
            shrinking_rate(
                at["iters"],
                at["epoch"],
                given["base_keep_rate"],
                start=at["warmup_epochs"],
                end=at["total_epochs"],
                per_epoch=at["iters_per_epoch"],
                highest=given["max_keep_rate"],
            )
        )
    ledger.value("keep_rate", torch.tensor(ours, dtype=theirs.dtype, device=theirs.device), theirs)


def _reducer(golden: Golden, fuse: bool) -> EViT:
    """The block's configured rate or run-time count, as EViT's code combines them."""
    settings = golden.settings
    rate, runtime = settings.number("keep_rate"), settings.take("runtime_keep_rate", None)
    if settings.take("tokens", None) is not None:
        return EViT(tokens=settings.whole("tokens", least=1), at=(0,), fuse=fuse)
    if runtime is not None:
        rate = settings.number("runtime_keep_rate") if rate < 1 else 1.0
    return EViT(float(rate), at=(0,), fuse=fuse)


def _others(reduction: Reduction | None, n: int) -> Tensor:
    """Positions behind the class token that are not kept, rising: (B, n - 1 - K)."""
    if reduction is None:
        raise Malformed("there are other tokens (compl), but every token is kept")
    index = kept_positions(reduction)
    mask = torch.ones(index.shape[0], n, dtype=torch.bool, device=index.device).scatter_(1, index, False)
    return mask.nonzero()[:, 1].reshape(index.shape[0], -1) - 1


def _block(golden: Golden, ledger: Ledger, reducer: EViT) -> None:
    """The same step inside a timm block, taken apart by the adapter."""
    if "block_in" not in golden:
        return
    entering = golden.floats("block_in", dims=3)
    eps = golden.settings.number("ln_eps", NORM_EPS)
    block = timm_block(golden.weights(entering.dtype), entering.dtype, golden.tensor("q").shape[1], eps)
    adapter = TimmViTAdapter()
    attended = adapter.attend(block, Tokens(entering, Grid(1, 1, entering.shape[1])), None)
    for name, ours in (("q", attended.q), ("k", attended.k), ("v", attended.v), ("x_in", attended.x)):
        ledger.value(f"block {name}", ours, golden.floats(name))
    probe = Probe(entering, attended.q, attended.k, attended.v, scale=attended.scale, prefix=1)
    tokens = Tokens(attended.x, Grid(1, 1, entering.shape[1] - 1), prefix=1)
    reduction = reducer.reduce(tokens, probe, Site(reducer.site, reducer.schedule.steps(1)[0], 1, 1))
    if reduction is not None:
        tokens = advance(tokens, reduction)
    ledger.value("block_out", adapter.feed(block, tokens.x).x, golden.floats("block_out"))
