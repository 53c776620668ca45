"""Losses that pull a reduced model towards the unreduced one, shared by the learned methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.learned import WHOLE

SPREAD = 1e-6
"""Least variance of tokens: those of a trained model have about 1 to 50."""


def logit_distillation(student: Tensor, teacher: Tensor, tasks: Sequence[slice] = WHOLE) -> Tensor:
    """KL divergence of the student's answers from the teacher's, nats, mean over samples, summed over tasks.

    Args:
        student, teacher: (B, classes); tasks: the parts of the logits that are a classification each.
    """
    parts = [
        F.kl_div(
            student[:, task].float().log_softmax(-1),
            teacher[:, task].float().log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
        for task in tasks
    ]
    return torch.stack(parts).sum()


def unexplained_variance(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the student's tokens from the teacher's, as a share of the variance of the teacher's: 0 =
    the same tokens, 1 = no better than their mean.

    Args:
        student, teacher: (B, n, C), token for token.
    """
    wanted = teacher.float()
    spread = (wanted - wanted.mean(dim=(0, 1))).square().mean()
    return (student.float() - wanted).square().mean() / spread.clamp_min(SPREAD)
