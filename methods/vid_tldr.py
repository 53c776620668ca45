"""vid-TLDR: saliency-aware token merging for video transformers (Choi et al., CVPR 2024, arXiv 2403.13347).
Training-free.

Verified against the official code's outputs (scores, matchings, masses, block outputs, logits) on a video ViT without
class token, the only kind of backbone that it has. Differs in streaming the saliency from queries and keys beside fused
attention instead of holding two attention maps per block, in decisions and masses in float32, in protecting prefix
tokens (official: a class token may be merged away), in guards where the official code gives NaN (uniform attention,
attention that underflows to zero, zero features), and in recording a clamped r instead of clamping in silence.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.backbones.geometry import Geometry
from tokred.matching import match_halves
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, Strength, TokenReducer
from tokred.reduction import Merge
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Tokens

FLAT_ULPS = 4
"""Sharpness that varies by less than so many roundings of one nat is noise: the official entropies resolve no more."""

LEAST_MASS = 2.0**-40
"""What a token of zero mass weighs with ``weighted="all"``: nothing in attention (log: -27.7), an exact factor."""


def saliency_of(sharpness: Tensor) -> Tensor:
    """Saliency of each token in [0, 1] from how sharp its own attention is: zero at and below the mean (background).

    Equal to the official chain (min-max, mask below the mean, centre, divide by the maximum), which any affine map of
    its input leaves as it is.

    Args:
        sharpness: (B, N), nats: negative entropy of each row, with or without a constant.
    Returns:
        (B, N); ones where no token is sharper than another (official: 0 / 0), so that plain similarity decides.
    """
    centred = sharpness - sharpness.mean(dim=1, keepdim=True)
    span = centred.amax(dim=1, keepdim=True)
    flat = span <= FLAT_ULPS * torch.finfo(sharpness.dtype).eps
    return torch.where(flat, 1.0, centred.clamp_min(0) / torch.where(flat, 1.0, span))


@register("vid_tldr")
class VidTLDR(TokenReducer):
    """In early blocks, between attention and MLP, merge the r most similar pairs; background enters with no weight.

    Args:
        r: tokens merged per block: a number of tokens, or a fraction below one of the current ones (rounded down); one
            for every block in ``at``, or one per block (padded with 0). Published lists are tuned per data set, e.g.
            (600, 200, 100) for 2352 tokens on ViT-B.
        at: blocks that merge; default the first four for a single r, all for a list.
        weighted: which tokens' masses are scaled by saliency: "sources" (official code: merged tokens only) or "all"
            (as figure 3 of the paper is captioned: destinations and unmerged tokens too).
        pool: on mean-pooling hosts, "mean" (official) or "mass".
    """

    status = "official code"
    site = "after_attention"
    strength = "r"
    published_macs = "the official code reads the saliency from an attention map that it has; here it is streamed"
    proportional = True
    capabilities = Capabilities(needs=frozenset({"entropy"}), channel_blind=True)

    def __init__(
        self,
        r: int | float | tuple[int | float, ...] = 0,
        *,
        at: str | tuple[int, ...] | None = None,
        weighted: str = "sources",
        pool: str = "mean",
    ) -> None:
        if weighted not in ("sources", "all"):
            raise ScheduleError(f"weighted = {weighted!r} is not one of sources, all")
        if pool not in ("mass", "mean"):
            raise ScheduleError(f"pool = {pool!r} is not one of mass, mean")
        if at is None:
            at = "all" if isinstance(r, (tuple, list)) else "early"
        super().__init__(Schedule(at=at, drop=r))
        self.weighted = weighted
        self.pool = pool

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Merge | None:
        r, _ = _merged(site.step, tokens.patch_count)
        if r == 0:
            return None
        matching = match_halves(tokens.patches.detach(), r, in_position=True)
        saliency = saliency_of(probe.sharpness[:, tokens.prefix :])
        if self.weighted == "sources":
            source = 2 * matching.source
            weight = torch.ones_like(saliency).scatter(1, source, saliency.gather(1, source))
        else:
            mass = tokens.masses[:, tokens.prefix :]
            weight = (saliency * mass).clamp_min(LEAST_MASS) / mass
        assign = matching.assign
        if tokens.prefix:
            front = torch.arange(tokens.prefix, device=assign.device).expand(assign.shape[0], tokens.prefix)
            assign = torch.cat([front, assign + tokens.prefix], dim=1)
            weight = torch.nn.functional.pad(weight, (tokens.prefix, 0), value=1.0)
        return Merge(assign, tokens.prefix + matching.n_out, weight=weight)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        r, wanted = _merged(step, count)
        clamped = f"block {step.block}: r = {wanted} clamped to {r}, half of the tokens"
        return Promise(count - r, None if r else groups, (clamped,) if r < wanted else ())

    def strength_range(self, geometry: Geometry) -> Strength:
        """r up to half of the tokens (large ones are clamped in later blocks, which is noted)."""
        return Strength("r", 0, geometry.reduced_grid.patches // 2, whole=True)

    def describe(self, geometry: Geometry) -> list[str]:
        lines = []
        if geometry.stages:
            lines.append("vid-TLDR-style: entropy of each token over its window (no official counterpart)")
        if geometry.prefix:
            lines.append("vid-TLDR with protected prefix tokens (no official counterpart)")
        if self.weighted == "all":
            lines.append("all masses scaled by saliency, as the paper's figure 3 (official code: merged tokens only)")
        return lines

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """The similarities of even with odd tokens. The published algorithm reads the saliency from the attention map,
        which it has anyway; streaming it runs another N^2 C, counted in what is executed."""
        n = tokens - geometry.prefix
        return ((n + 1) // 2) * (n // 2) * geometry.dim


def _merged(step: Step, n: int) -> tuple[int, int]:
    """Tokens that a step merges of n patch tokens, and what it wanted to."""
    wanted = int(step.amount) if step.kind == "drop" else n - step.left(n)
    return min(wanted, n // 2), wanted
