"""How much of a frame the next one repeats, block by block: the temporal redundancy of the tokens that are left."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.attach import Attached
from tokred.tokens import Tokens


def trajectory(model: Attached, clips: Tensor) -> dict[str, Tensor]:
    """The trajectory sum behind every block (STA eq. 6, as far as its text and printed values tell: see `path_sum`).

    Args:
        model: attached, with any reducer whose tokens know which patches they carry.
        clips: (B, 3, T, H, W).
    Returns:
        ``trajectory`` (B, depth), from -(T - 1) to T - 1; NaN where a frame has no token left, or where nothing can
        be traced.
    """
    sums: list[Tensor] = []

    def look(block: int, tokens: Tokens) -> None:
        if block >= 0:
            sums.append(_of(tokens))

    with torch.inference_mode():
        model.run(clips, trace=True, observe=look)
    return {"trajectory": torch.stack(sums, dim=1)}


def _of(tokens: Tokens) -> Tensor:
    b, t = tokens.x.shape[0], tokens.grid.t
    if tokens.source is None or t < 2:
        return tokens.x.new_full((b,), float("nan"), dtype=torch.float32)
    return path_sum(tokens.x, in_frames(tokens.source, t, tokens.count))


def in_frames(source: Tensor, frames: int, count: int) -> Tensor:
    """Which tokens carry at least one patch of each frame: (B, T, N) bool.

    Args:
        source: (B, P) token that carries each patch, -1 = dropped; frames: T, P is a multiple; count: N.
    """
    b, p = source.shape
    present = torch.zeros(b, frames, count + 1, dtype=torch.bool, device=source.device)
    places = source.where(source >= 0, torch.full_like(source, count)).view(b, frames, p // frames)
    return present.scatter_(2, places, True)[..., :count]


def path_sum(x: Tensor, present: Tensor) -> Tensor:
    """Follow every token of the first frame to its most similar token in the next one, and on to the last; the sum of
    the cosines on the way, as a mean over the starts.

    The paper prints values near 5 for eight frames, which is what seven cosines of about 0.7 add up to; the wording of
    its eq. 6 was not at hand, so the definition is this sentence.

    Args:
        x: features (B, N, C); present: (B, T, N), which tokens are in which frame.
    Returns:
        (B,) float32; NaN for a clip with an empty frame.
    """
    x = F.normalize(x.float(), dim=-1)
    similar = x @ x.transpose(1, 2)  # (B, N, N)
    total = torch.zeros(present[:, 0].shape, device=x.device)
    at = torch.arange(x.shape[1], device=x.device).expand(total.shape)
    for frame in range(1, present.shape[1]):
        nearest = similar.masked_fill(~present[:, frame, None], -torch.inf).max(dim=2)
        total = total + nearest.values.gather(1, at)
        at = nearest.indices.gather(1, at)
    starts = present[:, 0]
    mean = total.where(starts, torch.zeros_like(total)).sum(1) / starts.sum(1).clamp_min(1)
    return mean.where(present.any(dim=2).all(dim=1), torch.full_like(mean, torch.nan))
