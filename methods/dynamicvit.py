"""DynamicViT: token pruning by small trained predictors (Rao et al., NeurIPS 2021, arXiv 2106.02034).

Inference drops tokens before a block; verified against the official code's outputs. In training nothing is dropped:
Gumbel-softmax decisions mask the keys of all later attention, and a loss pulls the kept share to its target.

Differs from the official code in taking the original patch count from the input (official: 14 x 14), in multiplying
the part of the predictor's input that all tokens share once instead of per token, in refusing a step that would keep
no token, in noting a step that asks for more tokens than there are, and in random numbers that depend on the clip
and the trainer's step alone. On hosts that average their tokens the official code has no rule for training: the mean
is over kept tokens here (*DynamicViT-style*).

Hosts with stages get the hierarchical form (arXiv 2207.01580; official models/dyswin.py): no token leaves. All attend,
and from a step to the end of its stage the best tokens get the whole MLP, the others a norm and one linear layer of
their block. Each step decides anew among all tokens, with the plain mean as context. Training runs both paths on every
token and blends them by the random decision. Differs from the official code in that steps act in every stage but the
first by default (official: three in the third), and in training, where it keeps two streams of features and feeds each
path its own: here both read the same features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.distillation import logit_distillation
from tokred.learned import SHIPPED, WHOLE, LearnedError, LearnedReducer, fresh, run_wide, uniform
from tokred.light import Light
from tokred.matching import noise
from tokred.predictor import SMALLEST, LightLayer, Predictor, gumbel_keep, ratio_loss, token_distillation
from tokred.probe import Probe
from tokred.ranking import ranking
from tokred.reducer import Capabilities, Promise, Site, Strength, keep_top
from tokred.reduction import Keep, Mask
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.semantic import run_like
from tokred.tokens import Tokens

if TYPE_CHECKING:
    from tokred.attach import Run


@register("dynamicvit")
class DynamicViT(LearnedReducer):
    """Keep the tokens that a trained predictor scores highest, a fixed share of the original ones.

    Args:
        keep: base rate b: step s (from 1) leaves int(n * b**s) of the n original patches; or one share of n per step,
            not rising. On hosts with stages n is the stage's grid, a single number is the share of every step, and
            what it leaves is the tokens with the whole MLP.
        at: blocks before which a step runs; default L//4, L//2, 3L//4 (3, 6, 9 of 12), on hosts with stages the first
            of every stage but the first.
        weights: "shipped" (those that come with the package for the backbone, if any), a safetensors file, or none.
        ratio_weight: weight of the loss that pulls kept shares to their targets (official 2, for DeiT-B 5).
        distill_weight: weight of the two distillation losses each (official 0.5).
        gradient_bound: in training, the largest gradient of one sample's loss with respect to one decision; none = as
            it is (official). Where almost all that a token attends to is dropped, that gradient is thousands of times
            what the decision can matter, and drowns all others.
    """

    status = "official code; published number"
    site = "before_block"
    strength = "keep"
    published_macs = "the official predictor multiplies the half that all tokens share once for each of them"
    capabilities = Capabilities(needs=frozenset({"training_seed"}), trainable=True)
    predictors: nn.ModuleList
    light: nn.ModuleDict

    def __init__(
        self,
        keep: float | tuple[float, ...] = 1.0,
        *,
        at: str | tuple[int, ...] = "quarters",
        weights: str | None = SHIPPED,
        ratio_weight: float = 2.0,
        distill_weight: float = 0.5,
        gradient_bound: float | None = None,
    ) -> None:
        for name, value in (("ratio_weight", ratio_weight), ("distill_weight", distill_weight)):
            if value < 0:
                raise ScheduleError(f"{name} = {value} is negative: allowed is 0 or more")
        if gradient_bound is not None and gradient_bound <= 0:
            raise ScheduleError(f"gradient_bound = {gradient_bound} is not above 0")
        super().__init__(Schedule(at=at, keep=keep), weights)
        if isinstance(keep, (tuple, list)) and any(late > early for early, late in pairwise(keep)):
            raise ScheduleError(f"keep = {tuple(keep)} rises: shares are of the original tokens, so they can only fall")
        self.listed = isinstance(keep, (tuple, list))
        self.ratio_weight = ratio_weight
        self.distill_weight = distill_weight
        self.gradient_bound = gradient_bound
        self.predictors = nn.ModuleList()
        self.light = nn.ModuleDict()

    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        widths, others = self.sizes(geometry)
        if min(widths, default=SMALLEST) < SMALLEST:
            raise ScheduleError(f"{self.spec} needs tokens of width {SMALLEST} or more, these have {min(widths)}")
        self.predictors = nn.ModuleList(fresh(partial(Predictor, width), seed) for seed, width in enumerate(widths))
        layers = {str(block): fresh(partial(LightLayer, width), block) for block, width in others}
        self.light = nn.ModuleDict(layers)

    def sizes(self, geometry: Geometry) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
        """Width of the tokens at each step, those that leave every token included; on hosts with stages, the blocks
        whose MLP some tokens may go without, each with its width."""
        steps = self.schedule.blocks(geometry.depth, geometry.sites(self.site))
        if not geometry.stages:
            return (geometry.dim,) * len(steps), ()
        stage = [geometry.stage_of(block) for block in range(geometry.depth)]
        width = [geometry.stages[number].dim for number in stage]
        behind = [b for b in range(geometry.depth) if any(step <= b and stage[step] == stage[b] for step in steps)]
        return tuple(width[step] for step in steps), tuple((b, width[b]) for b in behind)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | Mask | Light | None:
        predictor = self.predictors[site.index]
        if tokens.cover is not None:
            return self._light(tokens, predictor, site)
        if self.training:
            return self._mask(tokens, predictor, site)
        left = min(self._wanted(site.step, tokens.grid.patches), tokens.patch_count)
        if left == tokens.patch_count:
            return None
        return keep_top(tokens, run_wide(predictor, tokens.patches)[..., 0], left, order="score")

    def share(self, step: Step, staged: bool = False) -> float:
        """The share of the original patches that a step aims at; staged: whether the host has stages."""
        return float(step.amount) if self.listed or staged else float(step.amount) ** (step.index + 1)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        staged = bool(geometry.stages)
        wanted = self._wanted(step, geometry.grid.patches, staged)
        if wanted < 1:
            raise ScheduleError(
                f"keep = {self.config['keep']} at block {step.block} leaves int({geometry.grid.patches} * "
                f"{self.share(step, staged):g}) = 0 patches: allowed is what leaves at least 1"
            )
        notes = (f"block {step.block}: {wanted} tokens wanted, {count} are there",) if wanted > count else ()
        if staged:
            return Promise(count, groups, notes)
        return Promise(min(wanted, count), groups if wanted >= count else None, notes)

    def strength_range(self, geometry: Geometry) -> Strength:
        """Down to the base rate at which every step leaves a patch."""
        steps = self.schedule.blocks(geometry.depth, geometry.sites(self.site))
        if geometry.stages:
            fewest = min((geometry.stage_grid(geometry.stage_of(step)).patches for step in steps), default=1)
            return Strength("keep", 1.0, min(1.5 / fewest, 1.0), whole=False)
        lowest = (1.5 / geometry.grid.patches) ** (1 / max(1, len(steps)))
        return Strength("keep", 1.0, min(lowest, 1.0), whole=False)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """The predictor on every patch token, its shared half included, as published."""
        c = geometry.dim
        return (tokens - geometry.prefix) * (c * c + c * (c // 2) + (c // 2) * (c // 4) + 2 * (c // 4))

    def describe(self, geometry: Geometry) -> list[str]:
        told = super().describe(geometry)
        if geometry.stages:
            told.append("every token stays and attends; those not kept take one linear layer instead of the MLP")
        return told

    def training_losses(self, student: Run, teacher: Run | None, tasks: Sequence[slice] = WHOLE) -> dict[str, Tensor]:
        prefix = student.tokens.prefix
        policies, targets, losses = [], [], {}
        for site, made in student.steps:
            if isinstance(made, (Mask, Light)) and made.policy is not None:
                policies.append(made.policy[:, prefix:])
                targets.append(self.share(site.step, isinstance(made, Light)))
        if policies:
            losses["ratio"] = self.ratio_weight * ratio_loss(policies, targets)
        if teacher is not None and self.distill_weight > 0:
            policy = student.tokens.policy
            kept = torch.ones_like(student.tokens.x[..., 0]) if policy is None else policy
            logits = logit_distillation(student.logits, teacher.logits, tasks)
            features = token_distillation(student.tokens.x[:, prefix:], teacher.tokens.x[:, prefix:], kept[:, prefix:])
            losses |= {"logits": self.distill_weight * logits, "tokens": self.distill_weight * features}
        return losses

    def load_official(self, weights: Mapping[str, Tensor], source: str = "official weights") -> None:
        """Take the predictors (``score_predictor.*``) of an official checkpoint; the reducer must be built.

        Raises:
            LearnedError: they do not fit.
        """
        name = "score_predictor."
        own = {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}
        try:
            self.predictors.load_state_dict(own)
        except RuntimeError as error:
            raise LearnedError(f"the official predictors do not fit: {' '.join(str(error).split())}") from error
        self.mark_trained(1, source)

    def _wanted(self, step: Step, original: int, staged: bool = False) -> int:
        return int(original * self.share(step, staged))

    def _mask(self, tokens: Tokens, predictor: nn.Module, site: Site) -> Mask:
        """Training: what is dropped stays dropped, and no other token sees it."""
        x = tokens.patches
        before = x.new_ones(x.shape[:2]) if tokens.policy is None else tokens.policy[:, tokens.prefix :]
        kept = self._draw(tokens, run_wide(predictor, x, before), site, before)
        front = kept.new_ones(kept.shape[0], tokens.prefix)
        return Mask(torch.cat([front, kept], dim=1), tokens.groups)

    def _light(self, tokens: Tokens, predictor: nn.Module, site: Site) -> Light | None:
        """The hierarchical form, in training and at inference."""
        cost = LightLayer.macs(tokens.x.shape[2])
        if self.training:
            policy = self._draw(tokens, run_wide(predictor, tokens.x), site)
            return Light(self._path, cost, None, 0, policy, tokens.groups)
        left = min(self._wanted(site.step, tokens.grid.patches, True), tokens.count)
        if left == tokens.count:
            return None
        score = torch.nan_to_num(run_wide(predictor, tokens.x)[..., 0], nan=float("-inf"))
        order = ranking(score, 1, descending=True)
        return Light(self._path, cost, order, left, groups=tokens.groups)

    def _path(self, block: int, x: Tensor) -> Tensor:
        return run_like(self.light[str(block)], x)

    def _draw(self, tokens: Tokens, log_probabilities: Tensor, site: Site, before: Tensor | float = 1.0) -> Tensor:
        """Hard random decisions (B, n) with a soft gradient, none where ``before`` is zero."""
        assert tokens.sample_seed is not None
        integers = noise(tokens.sample_seed, 2 * log_probabilities.shape[1], self.step, site.block)
        kept = gumbel_keep(log_probabilities, uniform(integers).reshape(log_probabilities.shape)) * before
        if self.gradient_bound is not None and kept.requires_grad:
            bound = self.gradient_bound / len(kept)  # the trainer takes the mean over samples
            kept.register_hook(lambda gradient: gradient.clamp(-bound, bound))
        return kept
