"""EViT: token reorganisation by attention (Liang et al., ICLR 2022, arXiv 2202.07800).

With a class token this is EViT: tokens are ranked by class attention. Verified against the official code's outputs
and gradients. Without one it is *EViT-style*, with the score named in every result. Differs in computing the one
attention row that it needs beside fused attention, and in protecting distillation and register tokens. Gradients reach
the class row and the mean query through the fused token's weights; received attention is a constant in training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, TokenReducer, keep_top
from tokred.reduction import Fuse, Keep
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Tokens

SCORES = {"class": "class_row", "received": "received", "mean_query": "mean_query_row"}


@register("evit")
class EViT(TokenReducer):
    """Keep the most attended tokens between attention and MLP; fuse the rest into one token, or drop it.

    Args:
        keep: share of the current tokens that a step keeps, ceil(keep * n), or one share per step.
        tokens: tokens that a step keeps, instead of keep; or one count per step.
        at: blocks; default L//4, L//2, 3L//4 (3, 6, 9 of 12).
        fuse: add one token, the attention-weighted sum of the rest.
        score: "class" (EViT), "received" or "mean_query" (EViT-style); "auto" = class token if there is one, else
            received attention.
        normalise: divide the fused token's weights by their sum (official: raw sum).
        order: "score" (official: descending) or "position".
        pool: on mean-pooling hosts, "mean" or "mass".
    """

    status = "official code"
    site = "after_attention"
    strength = "keep"
    published_macs = "with windows, row statistics are computed for all places of the grid, padding included"

    def __init__(
        self,
        keep: float | tuple[float, ...] = 1.0,
        *,
        tokens: int | tuple[int, ...] | None = None,
        at: str | tuple[int, ...] = "quarters",
        fuse: bool = True,
        score: str = "auto",
        normalise: bool = False,
        order: str = "score",
        pool: str = "mean",
    ) -> None:
        if tokens is not None and keep != 1.0:
            raise ScheduleError(f"give keep or tokens, not both: keep = {keep}, tokens = {tokens}")
        if score not in ("auto", *SCORES):
            raise ScheduleError(f"score = {score!r} is not one of auto, {', '.join(SCORES)}")
        if order not in ("score", "position"):
            raise ScheduleError(f"order = {order!r} is not one of score, position")
        if pool not in ("mass", "mean"):
            raise ScheduleError(f"pool = {pool!r} is not one of mass, mean")
        super().__init__(Schedule(at=at, keep=keep) if tokens is None else Schedule(at=at, tokens=tokens))
        self.fuse = fuse
        self.score = score
        self.normalise = normalise
        self.order = order
        self.pool = pool
        if score == "auto":
            needs = {"class_row", "received"}
        else:
            needs = {SCORES[score]} | ({"class_token"} if score == "class" else set())
        self.capabilities = Capabilities(needs=frozenset(needs), channel_blind=True)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | Fuse | None:
        n = tokens.patch_count
        left = site.left(n)
        if left == n:
            return None
        scores = self._scores(tokens, probe)
        keep = keep_top(tokens, scores, left, order=self.order)
        if not self.fuse:
            return keep
        weights = torch.nn.functional.pad(scores, (tokens.prefix, 0)).scatter(1, keep.index, 0.0)
        if self.normalise:
            # All attention may lie on kept tokens: the rest then weighs nothing, instead of 0 / 0.
            weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return Fuse(keep.index, weights)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        left = step.left(count)
        return Promise(left + int(self.fuse), None) if left < count else Promise(count, groups)

    def describe(self, geometry: Geometry) -> list[str]:
        score = self._resolved(geometry.has_class_token)
        name = "EViT" if score == "class" else f"EViT-style ({score} attention)"
        return [f"{name}, rest {'fused' if self.fuse else 'dropped'}"]

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """One attention row is H N d; received attention is half of the block's attention; fusing is N C."""
        row = tokens * geometry.heads * geometry.head_dim
        score = row * (geometry.span or tokens) if self._resolved(geometry.has_class_token) == "received" else row
        return score + (tokens * geometry.dim if self.fuse else 0)

    def _resolved(self, class_token: bool) -> str:
        return self.score if self.score != "auto" else "class" if class_token else "received"

    def _scores(self, tokens: Tokens, probe: Probe) -> Tensor:
        row: Tensor = getattr(probe, SCORES[self._resolved(tokens.has_class_token)])
        return row[:, tokens.prefix :]


def shrinking_rate(
    iteration: int, epoch: int, base: float, *, start: int, end: int, per_epoch: int, highest: float = 1.0
) -> float:
    """EViT's training schedule of the keep rate: highest, then half a cosine down to base.

    Args:
        iteration: global iteration; epoch: its epoch.
        base: final keep rate; start: first shrinking epoch; end: first epoch at base; per_epoch: iterations per epoch.
    """
    if epoch < start:
        return highest
    if epoch >= end:
        return base
    progress = (iteration - per_epoch * start) / (per_epoch * (end - start))
    return base + (highest - base) * (math.cos(math.pi * progress) + 1) / 2
