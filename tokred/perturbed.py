"""Perturbed top-k: a soft choice of k among d whose gradient reaches the scores.

The perturbed maximum of Berthet et al. (NeurIPS 2020) as STTS uses it (Wang et al., ECCV 2022, arXiv 2111.11591; MViT
and VideoSwin ``topk.py``). Differs from the official code in building the indicator as a histogram of indices instead
of a one-hot per sample, in breaking ties by the earlier entry, in noise that is handed in instead of drawn from the
global generator, and in offering the true Jacobian beside the diagonal that the official backward keeps.
Notation: R rows, d candidates, k chosen, n samples.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tokred.learned import uniform
from tokred.matching import noise
from tokred.precision import wide

JACOBIANS = ("diagonal", "full")
SMALLEST_SIGMA = 1e-20
"""At and below it the gradient is zero, as officially."""


def perturbed_top(scores: Tensor, k: int, sigma: float, draws: Tensor, jacobian: str = "diagonal") -> Tensor:
    """Expected indicator of the k highest scores under normal noise, entries in rising order.

    Args:
        scores: (R, d), float32 or wider.
        k: how many, 1..d.
        sigma: standard deviation of the noise, in units of the scores.
        draws: (R, n, d) standard normal numbers.
        jacobian: "diagonal" = grad s_i = sum_j gradP_ji mean_n 1[I_n(j) = i] Z_ni / sigma, the official backward;
            "full" = the gradient of the expectation, mean_n (L_n - L_0) Z_n / sigma with L_n = sum_j gradP_j,I_n(j) and
            L_0 that of the unperturbed choice (which changes no expectation and takes most of the noise away).
    Returns:
        (R, k, d): share of samples whose j-th smallest chosen entry is i; each (r, j) sums to one.
    Raises:
        ValueError: k is not in 1..d, or no such Jacobian.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k = {k} is not in 1..{scores.shape[1]}")
    if jacobian not in JACOBIANS:
        raise ValueError(f"jacobian = {jacobian!r} is not one of {', '.join(JACOBIANS)}")
    chosen: Tensor = _PerturbedTop.apply(scores, k, sigma, draws, jacobian == "full")
    return chosen


def normal_draws(sample_seed: Tensor, rows: int, samples: int, d: int, *salt: int) -> Tensor:
    """Standard normal numbers for each row of each sample, a pure function of the sample and the salt.

    Args:
        sample_seed: (B,) int64; rows: rows per sample; salt: e.g. the trainer's step and the block.
    Returns:
        (B * rows, samples, d) float32.
    """
    integers = noise(sample_seed, rows * samples * d, *salt)
    normal = math.sqrt(2.0) * torch.erfinv(2.0 * uniform(integers) - 1.0)
    return normal.float().reshape(-1, samples, d)


class _PerturbedTop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, sigma: float, draws: Tensor, full: bool) -> Tensor:
        r, n, d = draws.shape
        noisy = scores[:, None] + sigma * draws.to(scores.dtype)
        index = noisy.argsort(dim=-1, descending=True, stable=True)[..., :k].sort(dim=-1).values  # (R, n, k)
        ctx.save_for_backward(scores, index, draws)
        ctx.settings = (sigma, full)
        ones = torch.ones((), dtype=scores.dtype, device=scores.device)
        counts = scores.new_zeros(r, k, d).scatter_add(2, index.transpose(1, 2), ones.expand(r, k, n))
        return counts / n

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients  # (R, k, d)
        scores, index, draws = ctx.saved_tensors
        sigma, full = ctx.settings
        if sigma <= SMALLEST_SIGMA:
            return torch.zeros_like(scores), None, None, None, None
        n = draws.shape[1]
        places, z = index.transpose(1, 2), draws.to(grad.dtype)  # (R, k, n)
        if full:
            k = index.shape[2]
            plain = scores.argsort(dim=-1, descending=True, stable=True)[:, :k].sort(dim=-1).values
            loss = grad.gather(2, places).sum(dim=1) - grad.gather(2, plain[..., None]).sum(dim=1)  # (R, n)
            slope = (loss[..., None] * z).sum(dim=1)
        else:
            hit = z.gather(2, index).transpose(1, 2)  # (R, k, n): the noise that each chosen entry had
            slope = (grad * torch.zeros_like(grad).scatter_add(2, places, hit)).sum(dim=1)
        return slope / (n * sigma), None, None, None, None


def min_max(scores: Tensor) -> Tensor:
    """Scores (R, M) moved to 0..1 in each row, with gradients through both ends; a constant row becomes zero."""
    scores = wide(scores)
    low, high = scores.amin(dim=-1, keepdim=True), scores.amax(dim=-1, keepdim=True)
    return (scores - low) / (high - low + 1e-5)
