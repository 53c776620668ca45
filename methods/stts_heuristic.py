"""STTS without its scorers: whole frames, then one square in each frame, chosen by rules that need no training.

A stand-in, and a baseline, for STTS (Wang et al., ECCV 2022, arXiv 2111.11591): the sizes and places are those of
STTS, the learned scores are replaced. It has no official code and no published number; frames="uniform" with
squares="centre", and both "random", are the controls that a learned choice has to beat.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokred.anchors import Anchors
from tokred.matching import noise
from tokred.precision import wide
from tokred.reducer import Capabilities, Site
from tokred.reduction import Keep
from tokred.registry import register
from tokred.schedule import ScheduleError
from tokred.tokens import Tokens
from tokred.two_stage import FramesThenSquares, best, keep_frames, keep_squares

FRAMES = ("uniform", "difference", "norm", "random")
SQUARES = ("norm", "difference", "centre", "random")


@register("stts_heuristic")
class STTSHeuristic(FramesThenSquares):
    """Keep whole frames before one block, then one square of each frame before a later one, without training.

    Args:
        keep: share of all tokens that both stages leave together; frames get keep^(2/3), squares keep^(1/3), each
            rounded to whole frames and rows.
        time: instead of keep, the share of the frames, rounded down.
        space: instead of keep, the share of each frame's tokens; the side of the square is rounded down.
        time_at: block before which frames go (0-based).
        space_at: block before which squares are cut; default a quarter of the depth.
        frames: "uniform" = evenly spaced from the first to the last; "difference" = mean L2 norm of a frame's change
            against the one before it (the first: against the one after it); "norm" = mean L2 norm of its tokens;
            "random".
        squares: "norm" = mean L2 norm of the square's tokens; "difference" = mean L2 norm of their deviation from the
            same place's mean over the frames (over the frame, where there is only one); "centre"; "random".
        seed: for the random choices, which depend on the clip's own bits.
    """

    def __init__(
        self,
        keep: float = 1.0,
        *,
        time: float | None = None,
        space: float | None = None,
        time_at: int = 0,
        space_at: int | None = None,
        frames: str = "uniform",
        squares: str = "difference",
        seed: int = 0,
    ) -> None:
        super().__init__(keep, time, space, time_at, space_at)
        for name, value, allowed in (("frames", frames, FRAMES), ("squares", squares, SQUARES)):
            if value not in allowed:
                raise ScheduleError(f"{name} = {value!r} is not one of {', '.join(allowed)}")
        self.frames = frames
        self.squares = squares
        self.seed = seed
        seeded = {"sample_seed"} if "random" in (frames, squares) else set()
        self.capabilities = Capabilities(
            needs=frozenset({"frames"} | seeded),
            keeps_frames=True,
            keeps_grid=True,
            keeps_order=True,
            channel_blind=True,
        )

    def choose_frames(self, tokens: Tokens, left: int, site: Site) -> Keep:
        groups = tokens.groups
        assert groups is not None
        if self.frames == "uniform":
            even = torch.arange(left, device=tokens.x.device) * (groups - 1) // max(left - 1, 1)
            return keep_frames(tokens, even.expand(tokens.x.shape[0], left))
        return keep_frames(tokens, best(self._frame_scores(tokens, groups, site), left))

    def choose_squares(self, tokens: Tokens, anchors: Anchors, site: Site) -> Keep:
        groups = tokens.groups
        assert groups is not None
        b, device = tokens.x.shape[0], tokens.x.device
        if self.squares == "centre":
            return keep_squares(tokens, anchors, torch.full((b, groups), anchors.centre, device=device))
        if self.squares == "random":
            assert tokens.sample_seed is not None
            drawn = noise(tokens.sample_seed, groups, self.seed, site.block, 1) % anchors.count
            return keep_squares(tokens, anchors, drawn)
        x = wide(tokens.by_frame())
        if self.squares == "difference":
            x = x - x.mean(dim=1 if groups > 1 else 2, keepdim=True)
        scores = anchors.means(x.norm(dim=-1).flatten(0, 1))  # (B * T, L)
        return keep_squares(tokens, anchors, best(scores, 1).reshape(b, groups))

    def _frame_scores(self, tokens: Tokens, groups: int, site: Site) -> Tensor:
        """Score of each frame, (B, T), higher = kept."""
        if self.frames == "random":
            assert tokens.sample_seed is not None
            return noise(tokens.sample_seed, groups, self.seed, site.block, 0)
        x = wide(tokens.by_frame())
        if self.frames == "norm":
            return x.norm(dim=-1).mean(dim=-1)
        change = (x[:, 1:] - x[:, :-1]).norm(dim=-1).mean(dim=-1)  # (B, T - 1)
        return torch.cat([change[:, :1], change], dim=1)
