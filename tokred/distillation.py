"""Losses that pull a reduced model towards the unreduced one, shared by the learned methods."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.learned import WHOLE


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
