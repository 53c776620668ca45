"""Learned keep decisions: the network that scores tokens, the random decision of training, its losses (DynamicViT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.learned import LearnedError

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


class LightLayer(nn.Module):
    """A norm and one linear layer, added to the token instead of the MLP's branch (C to C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, C) to (B, n, C)."""
        y: Tensor = self.linear(self.norm(x))
        return y

    @staticmethod
    def macs(dim: int) -> int:
        """Multiply-adds per token, 5 per element of the norm."""
        return dim * dim + 5 * dim


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
