"""Replay of vid-TLDR's function-level vectors: saliency from queries and keys, one merge with its masses."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tokred import saliency
from tokred.advance import advance
from tokred.methods.vid_tldr import VidTLDR, saliency_of
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Merge
from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed
from tokred.schedule import Step
from tokred.tokens import Grid, Tokens

OUTPUTS = 1e-5
ROUNDINGS = 8
"""Roundings of the entropy in the reference's float32 that its saliency may be off by, where those exceed OUTPUTS."""


class Decided(NamedTuple):
    """A merge in the reference's terms: positions among the even tokens, and of destinations among the odd ones."""

    unmerged: Tensor
    source: Tensor
    destination: Tensor
    score: Tensor


@torch.no_grad()
def function(golden: Golden, ledger: Ledger) -> None:
    """One merge: attention, entropy, saliency, matching, features, masses, provenance."""
    settings = golden.settings
    x = golden.floats("x", dims=3)
    b, n, _ = x.shape
    settings.agree("C", x.shape[2])
    q, k, scale = _attention(golden, n, b)
    size = column(golden, "size_in") if "size_in" in golden else None
    settings.agree("size_in_given", size is not None)
    tokens = Tokens(x, Grid(1, 1, n), size=size)
    plain = Probe(x, q, k, scale=scale)
    if "attn" in golden:
        ledger.value("attn", plain.attention, golden.floats("attn", dims=4), absolute=OUTPUTS)
    _statistics(golden, ledger, plain)
    score = saliency_of(plain.sharpness)

    amount = amount_of(settings.take("r"), "r", ledger)
    reducer = VidTLDR(amount, at=(0,))
    # A step that merges nothing is no step of a schedule; here it is asked for all the same.
    step = next(iter(reducer.schedule.steps(1)), Step(0, 0, "drop", 0))
    probe = Probe(x, q, k, scale=scale, size=size, needs=reducer.capabilities.needs)
    merge = reducer.reduce(tokens, probe, Site(reducer.site, step, 1, 1))
    effective = 0 if merge is None else n - merge.n_out
    ledger.counts("r_effective", effective, settings.whole("r_effective", effective))
    ledger.counts("noop", merge is None, settings.flag("noop", merge is None))
    traced = "source_out" in golden
    settings.agree("source_trace", traced)
    background = settings.take("n_background_sources", None)
    if merge is None:
        ledger.bits("x_out", x, golden.floats("x_out", dims=3))
        if "size_out" in golden:
            ledger.value("size_out", tokens.masses, column(golden, "size_out"), absolute=OUTPUTS)
        return
    found = decided(merge, score)
    if background is not None:
        ledger.counts("n_background_sources", (found.score == 0).sum(1).tolist(), background)
    matching(golden, ledger, "", found, OUTPUTS)
    after = advance(tokens, merge)
    ledger.value("x_out", after.x, golden.floats("x_out", dims=3), absolute=OUTPUTS)
    ledger.value("size_out", after.masses, column(golden, "size_out"), absolute=OUTPUTS)
    if traced:
        ledger.value("source_out", _source(merge, found), golden.floats("source_out", dims=3), absolute=OUTPUTS)


@torch.no_grad()
def streaming(golden: Golden, ledger: Ledger) -> None:
    """Row and column statistics of many tokens, for which no map is stored."""
    q, k, scale = _attention(golden, *reversed(golden.floats("q", dims=4).shape[::2]))
    plain = Probe(q.new_zeros(q.shape[0], q.shape[2], 1), q, k, scale=scale)
    _statistics(golden, ledger, plain)
    names = ("mean_head_neg_entropy", "row0_mean", "biased_col_mean")
    per_head, row, biased = (f"derived.{name}" for name in names)
    if per_head in golden:
        heads = [saliency.row_statistics(q[:, [i]], k[:, [i]], scale, entropy=True) for i in range(q.shape[1])]
        ours = torch.stack([head.negative_entropy for head in heads if head.negative_entropy is not None]).mean(0)
        ledger.value(per_head, ours, golden.floats(per_head, dims=2))
    if row in golden:
        ledger.value(row, saliency.attention_row(q[:, :, 0], k, scale), golden.floats(row, dims=2))
    if biased in golden:
        log_size = column(golden, "size").log()
        found = saliency.row_statistics(q, k, scale, log_size=log_size).received
        assert found is not None
        ledger.value(biased, found, golden.floats(biased, dims=2))


def amount_of(r: object, where: str, ledger: Ledger) -> int | float:
    """One entry of r as the reference reads it: a share below one, else a whole number of tokens; none below zero.

    Raises:
        Malformed: what the reference cannot run: no number, or a fraction above one.
    """
    if isinstance(r, bool) or not isinstance(r, (int, float)) or (isinstance(r, float) and not r < 1):
        raise Malformed(f"{where} = {r!r} is neither a share below one nor a whole number")
    if r < 0:
        ledger.notes.append(f"{where} = {r} is below zero: nothing is merged, as in the reference")
    return r if r > 0 else 0


def decided(merge: Merge, score: Tensor) -> Decided:
    """Which tokens a merge moved where, sources in position order.

    Args:
        score: (B, N) saliency.
    """
    n = merge.n_in
    kept = (n + 1) // 2 - (n - merge.n_out)  # even tokens that stay
    place = merge.assign[:, ::2]
    position = torch.arange(place.shape[1], device=place.device).expand_as(place)
    unmerged = position[place < kept].reshape(place.shape[0], kept)
    source = position[place >= kept].reshape(place.shape[0], n - merge.n_out)
    return Decided(unmerged, source, place.gather(1, source) - kept, score.gather(1, 2 * source))


def matching(golden: Golden, ledger: Ledger, name: str, ours: Decided, tolerance: float) -> None:
    """The decisions against ``{name}unm_idx``, ``src_idx``, ``dst_idx`` and ``src_score``; sources as sets."""
    source, order = golden.indices(f"{name}src_idx", dims=2).sort(dim=1)
    ledger.decision(f"{name}unm_idx", ours.unmerged, golden.indices(f"{name}unm_idx", dims=2))
    ledger.decision(f"{name}src_idx", ours.source, source)
    ledger.decision(f"{name}dst_idx", ours.destination, golden.indices(f"{name}dst_idx", dims=2).gather(1, order))
    if f"{name}src_score" in golden:
        theirs = golden.floats(f"{name}src_score", dims=2).gather(1, order)
        ledger.value(f"{name}src_score", ours.score, theirs, absolute=tolerance)


def _attention(golden: Golden, n: int, b: int) -> tuple[Tensor, Tensor, float]:
    """Queries and keys (B, H, N, d) and the factor on their product."""
    settings = golden.settings
    q, k = golden.floats("q", dims=4), golden.floats("k", dims=4)
    if q.shape != k.shape or q.shape[0] != b or q.shape[2] != n:
        raise Malformed(f"queries {tuple(q.shape)} and keys {tuple(k.shape)} for {b} samples of {n} tokens")
    for names, length in zip((("B",), ("num_heads", "H"), ("N",), ("head_dim", "d")), q.shape, strict=True):
        for name in names:
            settings.agree(name, length)
    scale = settings.take("scale", "head_dim**-0.5")
    if scale == "head_dim**-0.5":
        return q, k, q.shape[3] ** -0.5
    return q, k, float(settings.number("scale"))


def _statistics(golden: Golden, ledger: Ledger, probe: Probe) -> None:
    """Saliency, negative entropy and column mean of the unbiased map."""
    score, entropy, received = "score", "derived.neg_entropy", "derived.col_mean"
    if entropy in golden:
        ledger.value(entropy, probe.negative_entropy, golden.floats(entropy, dims=2))
    if received in golden:
        ledger.value(received, probe.received, golden.floats(received, dims=2))
    if score in golden:
        tolerance = score_tolerance(probe, OUTPUTS)
        ledger.value(score, saliency_of(probe.sharpness), column(golden, score), absolute=tolerance)


def score_tolerance(probe: Probe, least: float) -> float:
    """How far a saliency may be off: ``least``, or what rounding of the reference's entropies does to it."""
    entropy = probe.negative_entropy
    span = float((entropy.amax(1) - entropy.mean(1)).amin())
    rounding = ROUNDINGS * torch.finfo(torch.float32).eps * float(entropy.abs().max())
    return max(least, rounding / span) if span > 0 else least


def _source(merge: Merge, found: Decided) -> Tensor:
    """Provenance as the reference holds it, (B, M, N): one where a token went as it was, its saliency where merged."""
    b, n = merge.assign.shape
    share = found.score.new_ones(b, n).scatter(1, 2 * found.source, found.score)
    return share.new_zeros(b, merge.n_out, n).scatter(1, merge.assign[:, None], share[:, None])


def column(golden: Golden, name: str) -> Tensor:
    """A tensor (B, N, 1) or (B, N) as (B, N)."""
    tensor = golden.floats(name)
    if tensor.ndim == 3 and tensor.shape[2] == 1:
        return tensor[..., 0]
    if tensor.ndim != 2:
        raise Malformed(f"{name} has shape {tuple(tensor.shape)}: (B, N, 1) was expected")
    return tensor
