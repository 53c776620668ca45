"""DynamicViT: token pruning by small trained predictors (Rao et al., NeurIPS 2021, arXiv 2106.02034).

Inference drops tokens before a block; verified against the official code's outputs. In training nothing is dropped:
Gumbel-softmax decisions mask the keys of all later attention, and a loss pulls the kept share to its target.

Differs from the official code in taking the original patch count from the input (official: 14 x 14), in multiplying
the part of the predictor's input that all tokens share once instead of per token, in refusing a step that would keep
no token, in noting a step that asks for more tokens than there are, and in random numbers that depend on the clip
and the trainer's step alone. On hosts that average their tokens the official code has no rule for training: the mean
is over kept tokens here (*DynamicViT-style*).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.distillation import logit_distillation
from tokred.learned import SHIPPED, WHOLE, LearnedError, LearnedReducer, fresh, run_wide, uniform
from tokred.matching import noise
from tokred.probe import Probe
from tokred.reducer import Capabilities, Promise, Site, Strength, keep_top
from tokred.reduction import Keep, Mask
from tokred.registry import register
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Tokens

if TYPE_CHECKING:
    from tokred.attach import Run

SMALLEST = 4
"""Width below which the predictor's last hidden layer (a quarter of it) would be empty."""


class Predictor(nn.Module):
    """Log probabilities to keep and to drop each token, from itself and the mean of the tokens that are left.

    Named and laid out as in official checkpoints. The widths are C, C/2, C/4 and 2.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(), nn.Linear(dim // 4, 2)
        )

    def forward(self, x: Tensor, present: Tensor | None = None) -> Tensor:
        """Log probabilities (B, n, 2) of tokens (B, n, C), entry 0 = keep.

        Args:
            present: (B, n), 1 = still there, 0 = masked; None = all there.
        """
        inner = self.in_conv(x)
        half = x.shape[-1] // 2
        local, rest = inner[..., :half], inner[..., half:]
        if present is None:
            shared = rest.mean(dim=1, keepdim=True)
        else:
            weight = present.to(rest.dtype)[..., None]
            # A sample without any token left: its mean is zero instead of 0 / 0.
            shared = (rest * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp_min(1.0)
        first: Any = self.out_conv[0]
        y = F.linear(local, first.weight[:, :half]) + F.linear(shared, first.weight[:, half:], first.bias)
        for layer in list(self.out_conv)[1:]:
            y = layer(y)
        return F.log_softmax(y, dim=-1)


@register("dynamicvit")
class DynamicViT(LearnedReducer):
    """Keep the tokens that a trained predictor scores highest, a fixed share of the original ones.

    Args:
        keep: base rate b: step s (from 1) leaves int(n * b**s) of the n original patches; or one share of n per step,
            not rising.
        at: blocks before which a step runs; default L//4, L//2, 3L//4 (3, 6, 9 of 12).
        weights: "shipped" (those that come with the package for the backbone, if any), a safetensors file, or none.
        ratio_weight: weight of the loss that pulls kept shares to their targets (official 2, for DeiT-B 5).
        distill_weight: weight of the two distillation losses each (official 0.5).
        gradient_bound: in training, the largest gradient of one sample's loss with respect to one decision; none = as
            it is (official). Where almost all that a token attends to is dropped, that gradient is thousands of times
            what the decision can matter, and drowns all others.
    """

    status = "official code"
    site = "before_block"
    strength = "keep"
    capabilities = Capabilities(needs=frozenset({"training_seed"}), trainable=True)
    predictors: nn.ModuleList

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

    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        if geometry.stages:
            raise ScheduleError(
                f"{self.spec} cannot be trained on a backbone with windows: its masks need attention among all tokens"
            )
        widths = self.sizes(geometry)
        if min(widths, default=SMALLEST) < SMALLEST:
            raise ScheduleError(f"{self.spec} needs tokens of width {SMALLEST} or more, these have {min(widths)}")
        self.predictors = nn.ModuleList(fresh(partial(Predictor, width), seed) for seed, width in enumerate(widths))

    def sizes(self, geometry: Geometry) -> tuple[int, ...]:
        """Width of the tokens at each step, those that leave every token included."""
        return (geometry.dim,) * len(self.schedule.blocks(geometry.depth, geometry.sites(self.site)))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Keep | Mask | None:
        predictor = self.predictors[site.index]
        if self.training:
            return self._mask(tokens, predictor, site)
        left = min(self._wanted(site.step, tokens.grid.patches), tokens.patch_count)
        if left == tokens.patch_count:
            return None
        return keep_top(tokens, run_wide(predictor, tokens.patches)[..., 0], left, order="score")

    def share(self, step: Step) -> float:
        """The share of the original patches that a step aims at."""
        return float(step.amount) if self.listed else float(step.amount) ** (step.index + 1)

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        wanted = self._wanted(step, geometry.grid.patches)
        if wanted < 1:
            raise ScheduleError(
                f"keep = {self.config['keep']} at block {step.block} leaves int({geometry.grid.patches} * "
                f"{self.share(step):g}) = 0 patches: allowed is what leaves at least 1"
            )
        notes = (f"block {step.block}: {wanted} tokens wanted, {count} are there",) if wanted > count else ()
        return Promise(min(wanted, count), groups if wanted >= count else None, notes)

    def strength_range(self, geometry: Geometry) -> Strength:
        """Down to the base rate at which every step leaves a patch."""
        steps = len(self.schedule.blocks(geometry.depth, geometry.sites(self.site)))
        lowest = (1.5 / geometry.grid.patches) ** (1 / max(1, steps))
        return Strength("keep", 1.0, min(lowest, 1.0), whole=False)

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """The predictor on every patch token, its shared half included, as published."""
        c = geometry.dim
        return (tokens - geometry.prefix) * (c * c + c * (c // 2) + (c // 2) * (c // 4) + 2 * (c // 4))

    def training_losses(self, student: Run, teacher: Run | None, tasks: Sequence[slice] = WHOLE) -> dict[str, Tensor]:
        masks = [(site, made) for site, made in student.steps if isinstance(made, Mask)]
        prefix = student.tokens.prefix
        losses = {}
        if masks:
            policies = [made.policy[:, prefix:] for _, made in masks]
            targets = [self.share(site.step) for site, _ in masks]
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

    def _wanted(self, step: Step, original: int) -> int:
        return int(original * self.share(step))

    def _mask(self, tokens: Tokens, predictor: nn.Module, site: Site) -> Mask:
        """Training: a hard random decision with a soft gradient; what is dropped stays dropped."""
        x = tokens.patches
        before = x.new_ones(x.shape[:2]) if tokens.policy is None else tokens.policy[:, tokens.prefix :]
        log_probabilities = run_wide(predictor, x, before)
        assert tokens.sample_seed is not None
        integers = noise(tokens.sample_seed, 2 * x.shape[1], self.step, site.block)
        kept = gumbel_keep(log_probabilities, uniform(integers).reshape(log_probabilities.shape)) * before
        if self.gradient_bound is not None and kept.requires_grad:
            bound = self.gradient_bound / len(x)  # the trainer takes the mean over samples
            kept.register_hook(lambda gradient: gradient.clamp(-bound, bound))
        front = kept.new_ones(kept.shape[0], tokens.prefix)
        return Mask(torch.cat([front, kept], dim=1), tokens.groups)


def gumbel_keep(log_probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Straight-through Gumbel-softmax decisions at temperature one.

    Args:
        log_probabilities: (B, n, 2), entry 0 = keep; uniforms: (B, n, 2) random numbers inside (0, 1).
    Returns:
        (B, n), 1 = keep, 0 = drop; the gradient is that of the soft decision.
    """
    gumbel = -(-uniforms.log()).log()
    soft = (log_probabilities + gumbel.to(log_probabilities.dtype)).softmax(dim=-1)[..., 0]
    hard = (soft >= 0.5).to(soft.dtype)
    return hard + (soft - soft.detach())  # in this order exactly 0 or 1


def ratio_loss(policies: Sequence[Tensor], targets: Sequence[float]) -> Tensor:
    """Squared difference of the kept share of each sample and its target, mean over samples and steps.

    Args:
        policies: one (B, n) per step; targets: shares of the original patches.
    """
    parts = [(p.mean(dim=1) - target).square().mean() for p, target in zip(policies, targets, strict=True)]
    return torch.stack(parts).mean()


def token_distillation(student: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """Mean squared difference of normalised patch tokens at the places that are kept in the end.

    The norm has no scale and shift of its own: the hosts' own last norm differs, or runs after pooling (official: the
    host's).

    Args:
        student, teacher: (B, n, C) after the last block; kept: (B, n), 1 = kept; it is a constant here.
    Raises:
        LearnedError: the student has another number of tokens, so another method reduced it.
    """
    if student.shape != teacher.shape:
        raise LearnedError(
            f"distillation needs the student's tokens in place: it has {student.shape[1]}, the teacher "
            f"{teacher.shape[1]}; train the learned method alone, or with distill_weight=0"
        )
    width = student.shape[-1:]
    gap = (F.layer_norm(student.float(), width) - F.layer_norm(teacher.float(), width)).square().mean(dim=-1)
    weight = kept.detach().to(gap.dtype)
    return (gap * weight).sum() / weight.sum().clamp_min(1.0)
