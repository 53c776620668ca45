"""ATS: adaptive token sampling by class attention and value norms (Fayyaz et al., ECCV 2022, arXiv 2111.15667).

This is the variant that the Eventful Transformers code runs (a fixed share of the highest scores, in every block), with
its two defects mended: it sums scores over the batch where it means heads, and it reads how much each token attends to
the class token where ATS defines how much the class token attends to it. ``official=True`` brings both back for parity,
and is verified against that code's outputs. The paper samples by inverse transform instead, so its number of distinct
tokens depends on the content; here it is fixed. Without a class token the mean query stands in, and inside windows,
where no query sees all tokens, the attention received there: *ATS-style*, named in every result. The kept rows of the
attention are taken after it ran, so that fused attention stays: the same tokens, at the cost of the rows that are
thrown away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.backbones.geometry import Geometry
from tokred.precision import full_precision, wide
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, TokenReducer, keep_patches, keep_top
from tokred.reduction import Keep
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Tokens

SCORES = ("auto", "class", "mean_query", "received")
TINY = torch.finfo(torch.float32).tiny


@register("ats")
class ATS(TokenReducer):
    """Keep the tokens with the highest attention times value norm, between attention and MLP.

    Args:
        keep: share of the current patch tokens that a step keeps, rounded down, at least one; or one share per step.
        at: blocks; default all of them.
        score: whose attention counts: "class" (ATS), "mean_query" or "received" = that of all tokens in the mean
            (ATS-style), "auto" = class token if there is one, else the mean query, received attention inside windows.
        stable: keep tokens that were kept in the last forward in their places and fill the others' places with the new
            ones, rising, so that what compares tokens over time compares like with like. Keeps state: ``reset``
            between videos; another batch size starts anew.
        official: with the two defects of the Eventful Transformers code: head b of all samples decides for sample b.
            For parity; needs a class token and at most as many samples as heads.
    """

    status = "official code"
    site = "after_attention"
    strength = "keep"

    def __init__(
        self,
        keep: float | tuple[float, ...] = 1.0,
        *,
        at: str | tuple[int, ...] = "all",
        score: str = "auto",
        stable: bool = False,
        official: bool = False,
    ) -> None:
        if score not in SCORES:
            raise ScheduleError(f"score = {score!r} is not one of {', '.join(SCORES)}")
        if official and score in ("mean_query", "received"):
            raise ScheduleError(f"official = true reads the class token: score = {score!r} contradicts it")
        super().__init__(Schedule(at=at, keep=keep))
        self.score = score
        self.stable = stable
        self.official = official
        if official:
            needs = {"attention", "value", "class_row", "class_token"}
        else:
            needs = {
                "auto": {"query", "key", "value", "class_row", "mean_query_row", "received"},
                "class": {"query", "key", "value", "class_row", "class_token"},
                "mean_query": {"query", "key", "value", "mean_query_row"},
                "received": {"value", "received"},
            }[score]
        self.capabilities = Capabilities(
            needs=frozenset(needs), stateful=stable, keeps_order=not stable, channel_blind=True
        )
        self._last: dict[int, Tensor] = {}

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | None:
        n = tokens.patch_count
        left = self._left(site.step, n)
        if left == n:
            return None
        if self.official:
            scores = official_scores(probe.attention, probe.v, tokens.prefix)[: tokens.x.shape[0]]
            if scores.shape[0] < tokens.x.shape[0]:
                raise ValueError(f"official = true takes at most {scores.shape[0]} samples (one per head) at a time")
        else:
            scores = self._scores(tokens, probe)
        kept = keep_top(tokens, scores, left)
        if not self.stable:
            return kept
        index = stabilised(kept.index[:, tokens.prefix :] - tokens.prefix, self._last.get(site.block))
        self._last[site.block] = index
        return keep_patches(tokens, index)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        left = self._left(step, count)
        wanted = int(float(step.amount) * count)
        notes = (f"block {step.block}: int({step.amount:g} * {count}) = 0 raised to 1",) if wanted < 1 else ()
        return Promise(left, groups if left == count else None, notes)

    def describe(self, geometry: Geometry) -> list[str]:
        if self.official:
            return ["ATS with the published code's defects: scores are summed over the batch"]
        kind = self._kind(geometry.has_class_token, bool(geometry.stages))
        inside = " inside windows" if geometry.stages else ""
        return [
            {
                "class": "ATS",
                "mean_query": "ATS-style (attention of the mean query)",
                "received": f"ATS-style (attention received{inside})",
            }[kind]
        ]

    def reset(self) -> None:
        self._last = {}

    def _left(self, step: Step, n: int) -> int:
        return max(1, int(float(step.amount) * n))

    def _kind(self, class_token: bool, windows: bool) -> str:
        """Whose attention counts here."""
        if self.score != "auto":
            return self.score
        return "class" if class_token else "received" if windows else "mean_query"

    def _scores(self, tokens: Tokens, probe: Probe) -> Tensor:
        kind = self._kind(tokens.has_class_token, tokens.cover is not None)
        if kind == "received":
            # Received attention is a mean over heads already, so the lengths are too.
            return (wide(probe.received) * wide(probe.v).norm(dim=-1).mean(dim=1))[:, tokens.prefix :]
        q, k = wide(probe.q), wide(probe.k)
        query = q[:, :, 0] if kind == "class" else q[:, :, tokens.prefix :].mean(dim=2)
        with full_precision(k):
            logits = (k @ query[..., None])[..., 0] * probe.scale  # (B, H, N)
        if probe.log_size is not None:
            logits = logits + probe.log_size[:, None]
        return normalised(logits.softmax(dim=-1), probe.v, tokens.prefix).sum(dim=1)


def normalised(row: Tensor, v: Tensor, prefix: int) -> Tensor:
    """Attention times value norm of the patch tokens, scaled to sum to one per head.

    Args:
        row: (B, H, N) attention per head; v: (B, H, N, d) values; prefix: tokens in front that do not take part.
    Returns:
        (B, H, N - prefix), float32 or wider. ATS eq. 4, per head.
    """
    score = (wide(row) * wide(v).norm(dim=-1))[..., prefix:]
    return score / score.sum(dim=-1, keepdim=True).clamp_min(TINY)


def official_scores(attention: Tensor, v: Tensor, prefix: int) -> Tensor:
    """The scores of the Eventful Transformers code, defects included: row h is head h summed over the batch.

    Args:
        attention: (B, H, N, N); v: (B, H, N, d).
    Returns:
        (H, N - prefix).
    """
    return normalised(attention[..., 0], v, prefix).sum(dim=0)


def stabilised(index: Tensor, last: Tensor | None) -> Tensor:
    """Kept positions in the order of the last time: who stays keeps the place, newcomers fill the rest, rising.

    Args:
        index: (B, K) kept positions, rising; last: (B, K) the result of the last time, None = there is none.
    Returns:
        (B, K), the same positions in another order; as they are where ``last`` has another shape.
    """
    if last is None or last.shape != index.shape:
        return index
    most = int(torch.maximum(index.amax(), last.amax())) + 1
    shape = (index.shape[0], most)
    now = torch.zeros(shape, dtype=torch.bool, device=index.device).scatter_(1, index, True)
    before = torch.zeros(shape, dtype=torch.bool, device=index.device).scatter_(1, last, True)
    ordered = last.clone()
    # Row by row as many places are free as there are newcomers, and both lists are in row order.
    ordered[~now.gather(1, last)] = index[~before.gather(1, index)]
    return ordered
