"""STTS: spatial-temporal token selection (Wang et al., ECCV 2022, arXiv 2111.11591). Two small trained scorers.

A temporal scorer ranks whole frames and keeps the best ones; a spatial scorer ranks squares and keeps one in each of
those frames. The choice is hard at inference; in training every survivor is a mixture under a noise-perturbed choice,
and scorers and backbone learn from the task's loss alone.

Verified against the official code's outputs (MViT and VideoSwin): scores, choices, training mixtures and gradients.
Differs from it in sums of slices instead of unfolding every square, in float32 scores in any precision, in ties that go
to the earlier candidate, in noise that depends on the clip and the trainer's step alone, and
in frames that need not be square. On a plain ViT the places of the two stages are ours: there is no official model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.anchors import Anchors
from tokred.backbones.geometry import Geometry
from tokred.learned import SHIPPED, LearnedError, LearnedReducer, fresh, run_wide
from tokred.perturbed import JACOBIANS, min_max, normal_draws, perturbed_top
from tokred.reducer import Capabilities, Site
from tokred.reduction import Keep, Reduction
from tokred.registry import register
from tokred.schedule import ScheduleError, Step
from tokred.soft_cut import Chained, MixFrames, MixSquares
from tokred.tokens import Tokens
from tokred.two_stage import FramesThenSquares, best, keep_frames, keep_squares


class Scorer(nn.Module):
    """One raw score per position from itself and the mean of its row; named and laid out as in official checkpoints.

    Widths E, E, E/2, E/4, 1; E must be divisible by 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width, eps=1e-5), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores (R, M) of the positions of each row (R, M, E)."""
        inner = self.in_conv(x)
        half = x.shape[-1] // 2
        shared = inner[..., half:].mean(dim=1, keepdim=True)
        first: Any = self.out_conv[0]
        # The half that all positions of a row share is multiplied once instead of per position.
        y = F.linear(inner[..., :half], first.weight[:, :half]) + F.linear(shared, first.weight[:, half:], first.bias)
        for layer in list(self.out_conv)[1:]:
            y = layer(y)
        return y[..., 0]


class Predictor(nn.Module):
    """Holder of a scorer under its official name."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score_network = Scorer(width)


def frame_scores(scorer: nn.Module, frames: Tensor) -> Tensor:
    """Raw scores of frames (B, T, S, C), from the mean and the maximum of their tokens: (B, T)."""
    mean = frames.mean(dim=2, dtype=torch.promote_types(frames.dtype, torch.float32))
    return run_wide(scorer, torch.cat([mean, frames.amax(dim=2).to(mean.dtype)], dim=-1))


def square_scores(scorer: nn.Module, frames: Tensor, anchors: Anchors) -> Tensor:
    """Raw scores of the squares of frames (R, S, C), the mean of their tokens' scores: (R, L)."""
    return anchors.means(run_wide(scorer, frames))


@register("stts")
class STTS(FramesThenSquares, LearnedReducer):
    """Keep the frames, then one square of each, that trained scorers rank highest.

    Args:
        keep: share of all tokens that both stages leave together; frames get keep^(2/3), squares keep^(1/3), each
            rounded to whole frames and rows; on hosts with windows frames give all of it.
        time: instead of keep, the share of the frames, rounded down (published: 0.375 to 0.875).
        space: instead of keep, the share of each frame's tokens; the side of the square is rounded down (published:
            0.6174 to 0.863).
        time_at: block before which frames go (0-based).
        space_at: block before which squares are cut; default a quarter of the depth.
        weights: "shipped" (those that come with the package for the backbone, if any), a safetensors file, or none.
        sigma: standard deviation of the noise on scores (0..1) in training.
        decay: whether sigma falls linearly to 0 over training (official MViT), or stays (official VideoSwin, where the
            update is never called).
        samples: noise samples per choice in training.
        jacobian: gradient of the perturbed choice, "diagonal" (official) or "full" (the true one).
    """

    status = "official code; published number"
    published_macs = "the official scorers multiply the half that all positions share once for each of them"
    capabilities = Capabilities(
        needs=frozenset({"frames", "training_seed"}),
        trainable=True,
        keeps_frames=True,
        keeps_grid=True,
        keeps_order=True,
    )

    def __init__(
        self,
        keep: float = 1.0,
        *,
        time: float | None = None,
        space: float | None = None,
        time_at: int = 0,
        space_at: int | None = None,
        weights: str | None = SHIPPED,
        sigma: float = 0.1,
        decay: bool = True,
        samples: int = 500,
        jacobian: str = "diagonal",
    ) -> None:
        super().__init__(keep, time, space, time_at, space_at)
        if sigma < 0:
            raise ScheduleError(f"sigma = {sigma} is negative: allowed is 0 or more")
        if samples < 1:
            raise ScheduleError(f"samples = {samples} is not a whole number of at least 1")
        if jacobian not in JACOBIANS:
            raise ScheduleError(f"jacobian = {jacobian!r} is not one of {', '.join(JACOBIANS)}")
        self.weights = weights
        self.sigma = sigma
        self.decay = decay
        self.samples = samples
        self.jacobian = jacobian
        self.time_score_predictor = nn.ModuleList()
        self.space_score_predictor = nn.ModuleList()

    def sizes(self, geometry: Geometry) -> tuple[int, int]:
        """Width of the tokens at the temporal and at the spatial stage."""
        stages, starts = geometry.stages, self.starts(geometry)
        return tuple(stages[geometry.stage_of(at)].dim if stages else geometry.dim for at in starts)  # type: ignore[return-value]

    def build(self, geometry: Geometry, host: nn.Module | None) -> None:
        self.build_for(*self.sizes(geometry))

    def build_for(self, time: int, space: int) -> None:
        """Both scorers, also that of a stage that the settings leave out: weights then fit every setting.

        Args:
            time: width of the tokens at the temporal stage; space: at the spatial stage.
        """
        if time % 2 or space % 4:
            raise ScheduleError(
                f"{self.spec} needs tokens of an even width at its temporal stage and of a width divisible by 4 at its "
                f"spatial stage; this backbone has {time} and {space}"
            )
        self.time_score_predictor = nn.ModuleList([fresh(lambda: Predictor(2 * time), 0)])
        self.space_score_predictor = nn.ModuleList([fresh(lambda: Predictor(space), 1)])

    def choose_frames(self, tokens: Tokens, left: int, site: Site) -> Keep | MixFrames:
        scores = frame_scores(_scorer(self.time_score_predictor), tokens.by_frame())
        if not self.training:
            return keep_frames(tokens, best(scores, left))
        weights = self._soft(tokens, scores, left, 1, site, 0)
        return MixFrames(weights, (tokens.grid.h, tokens.grid.w), tokens.prefix)

    def choose_squares(self, tokens: Tokens, anchors: Anchors, site: Site) -> Keep | MixSquares:
        frames = tokens.by_frame()
        b, t = frames.shape[:2]
        scores = square_scores(_scorer(self.space_score_predictor), frames.flatten(0, 1), anchors)
        if not self.training:
            return keep_squares(tokens, anchors, best(scores, 1).reshape(b, t))
        weights = self._soft(tokens, scores, 1, t, site, 1)
        return MixSquares(weights.reshape(b, t, anchors.count), anchors, tokens.prefix)

    def chain(self, first: Reduction, second: Reduction) -> Reduction:
        return Chained(first, second) if self.training else super().chain(first, second)

    def current_sigma(self) -> float:
        """The noise of the trainer's current step."""
        return self.sigma * (1 - self.step / self.steps_total) if self.decay else self.sigma

    def describe(self, geometry: Geometry) -> list[str]:
        return [*LearnedReducer.describe(self, geometry), *FramesThenSquares.describe(self, geometry)]

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """A scorer is 1.625 E^2 + E / 4 per position: frames with E = 2 C, tokens with E = C."""
        t = (tokens - geometry.prefix) // geometry.grid.per_frame
        frames, rows, columns = self.left(step, geometry.grid, t)
        total = t * _scorer_macs(2 * geometry.dim) if frames < t else 0
        if (rows, columns) != geometry.grid[1:]:
            total += frames * geometry.grid.per_frame * _scorer_macs(geometry.dim)
        return total

    def load_official(self, weights: Mapping[str, Tensor], source: str = "official weights") -> None:
        """Take the scorers (``time_score_predictor.*``, ``space_score_predictor.*``) of an official checkpoint with one
        site of a kind; the reducer must be built. A scorer that the checkpoint lacks keeps its parameters.

        Raises:
            LearnedError: there are none, or they do not fit.
        """
        own = self.state_dict()
        kinds = ("time_score_predictor.", "space_score_predictor.")
        found = {name: tensor for name, tensor in weights.items() if name.startswith(kinds)}
        wrong = [name for name, tensor in found.items() if name not in own or own[name].shape != tensor.shape]
        if wrong or not found:
            what = f"{wrong[0]} does not fit" if wrong else "there are none"
            raise LearnedError(f"the official scorers cannot be used by {self.spec} here: {what}")
        self.load_state_dict(found, strict=False)
        self.mark_trained(1, source)

    def draws(self, tokens: Tokens, rows: int, candidates: int, site: Site, stage: int) -> Tensor:
        """The noise of one choice in training, a function of the clip, the trainer's step and the place.

        Args:
            rows: choices per sample; candidates: d; stage: 0 = temporal, 1 = spatial.
        Returns:
            (B * rows, samples, d) standard normal numbers.
        """
        assert tokens.sample_seed is not None
        return normal_draws(tokens.sample_seed, rows, self.samples, candidates, self.step, site.block, stage)

    def _soft(self, tokens: Tokens, scores: Tensor, k: int, rows: int, site: Site, stage: int) -> Tensor:
        """Expected indicator of the k best of each row of scores (B * rows, d): (B * rows, k, d)."""
        draws = self.draws(tokens, rows, scores.shape[1], site, stage)
        return perturbed_top(min_max(scores), k, self.current_sigma(), draws, self.jacobian)


def _scorer(predictors: nn.ModuleList) -> nn.Module:
    scorer: nn.Module = predictors[0].get_submodule("score_network")
    return scorer


def _scorer_macs(width: int) -> int:
    return width * width + width * (width // 2) + (width // 2) * (width // 4) + width // 4
