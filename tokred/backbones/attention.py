"""Attention kernels with the log-mass bias of proportional attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from tokred.backbones.rows import attend_rows, one_pass
from tokred.saliency import RowStatistics, RowsWanted


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, log_size: Tensor | None, wanted: RowsWanted | None
) -> tuple[Tensor, RowStatistics | None]:
    """Attention (B, H, N, d) by the faster kernel, and what it found of the wanted statistics on the way.

    Args:
        wanted: row statistics that a step will read, None = none.
    Returns:
        The output; the statistics, None where fused attention ran and a second pass has to find them.
    """
    if wanted is not None and one_pass(q, k, v, log_size):
        return attend_rows(q, k, v, scale, log_size, wanted)
    return attend_fused(q, k, v, scale, log_size), None


def attend_fused(q: Tensor, k: Tensor, v: Tensor, scale: float, log_size: Tensor | None) -> Tensor:
    """Fused attention (B, H, N, d); the bias stays (B, 1, 1, N) and is skipped when there is none."""
    if log_size is None:
        return F.scaled_dot_product_attention(q, k, v, scale=scale)
    bias = log_size[:, None, None].to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(-1, -1, q.shape[2], -1), scale=scale)


def shrink_pixels(pixels: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, H, W) or (B, C, T, H, W): bilinear, antialiased, in float32."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    flat = pixels if pixels.ndim == 4 else pixels.transpose(1, 2).flatten(0, 1)
    small = F.interpolate(flat.float(), size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    small = small.to(pixels.dtype)
    if pixels.ndim == 4:
        return small
    return small.reshape(pixels.shape[0], pixels.shape[2], *small.shape[1:]).transpose(1, 2)
