"""STTS a second time, one row and one sample of noise after another in float64, nothing of tokred; and golden files."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from parity_files import Made, normal
from parity_reference import FAR
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

REPO = {"repo": "wangjk666/STTS"}
NOTE = "made from slow code"
Weights = dict[str, Tensor]


def scorer_weights(width: int, generator: torch.Generator) -> Weights:
    """A scorer's parameters under their official names."""
    widths = {"in_conv.1": (width, width), "out_conv.0": (width // 2, width)}
    widths |= {"out_conv.2": (width // 4, width // 2), "out_conv.4": (1, width // 4)}
    found = {"in_conv.0.weight": 1 + 0.1 * normal(generator, width), "in_conv.0.bias": 0.1 * normal(generator, width)}
    for name, (out, into) in widths.items():
        found[f"{name}.weight"] = normal(generator, out, into) / math.sqrt(into) * 1.5
        found[f"{name}.bias"] = 0.1 * normal(generator, out)
    return {name: tensor.float().double() for name, tensor in found.items()}


def raw_scores(w: Weights, x: Tensor) -> Tensor:
    """Scores (R, M) of (R, M, E)."""
    h = layer_norm(x, x.shape[-1:], w["in_conv.0.weight"], w["in_conv.0.bias"], 1e-5)
    h = gelu(linear(h, w["in_conv.1.weight"], w["in_conv.1.bias"]))
    half = x.shape[-1] // 2
    h = torch.cat([h[..., :half], h[..., half:].mean(1, keepdim=True).expand(-1, x.shape[1], -1)], dim=-1)
    for name in ("out_conv.0", "out_conv.2"):
        h = gelu(linear(h, w[f"{name}.weight"], w[f"{name}.bias"]))
    return linear(h, w["out_conv.4.weight"], w["out_conv.4.bias"])[..., 0]


def normalised(scores: Tensor) -> Tensor:
    low, high = scores.min(-1, keepdim=True).values, scores.max(-1, keepdim=True).values
    return (scores - low) / (high - low + 1e-5)


def top(scores: list[float], k: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: -scores[i])[:k])


def gap(scores: list[float], k: int) -> float:
    """How far the last chosen one is from the first that is not."""
    ranked = sorted(scores, reverse=True)
    return ranked[k - 1] - ranked[k] if k < len(ranked) else FAR


class Soft(torch.autograd.Function):
    """Share of samples whose j-th smallest chosen entry is i, with the gradient of its diagonal alone."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int, sigma: float, noise: Tensor) -> Tensor:
        rows, samples, d = noise.shape
        hits = torch.zeros(rows, samples, k, d, dtype=scores.dtype)
        for r in range(rows):
            for n in range(samples):
                for j, i in enumerate(top((scores[r] + sigma * noise[r, n]).tolist(), k)):
                    hits[r, n, j, i] = 1
        ctx.save_for_backward(hits, noise)
        ctx.sigma = sigma
        return hits.mean(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        hits, noise = ctx.saved_tensors
        if ctx.sigma <= 1e-20:
            return torch.zeros_like(noise[:, 0]), None, None, None
        slope = (hits * noise[:, :, None]).mean(1) / ctx.sigma
        return (gradients[0] * slope).sum(1), None, None, None


def soft_gap(scores: Tensor, k: int, sigma: float, noise: Tensor) -> float:
    return min(gap((s + sigma * z).tolist(), k) for s, row in zip(scores, noise, strict=True) for z in row)


def windows(h: int, w: int, side: int, stride: int | None) -> list[list[int]]:
    """Places of each square, by rows."""
    down, across = (stride or max((n - side) // 2, 1) for n in (h, w))
    corners = [(y, x) for y in range(0, h - side + 1, down) for x in range(0, w - side + 1, across)]
    return [[(y + i) * w + x + j for i in range(side) for j in range(side)] for y, x in corners]


def perturbed(cases: list[tuple[int, int, int, int, float]]) -> Callable[[int], Made]:
    """A file of perturbed top-k; a case is (rows, d, k, samples, sigma)."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        tensors: Weights = {}
        told, margin = [], FAR
        for c, (b, d, k, samples, sigma) in enumerate(cases):
            x, noise = torch.rand(b, d, generator=generator).double(), normal(generator, b, samples, d)
            grad = normal(generator, b, k, d)
            margin = min(margin, soft_gap(x, k, sigma, noise))
            x.requires_grad_()
            out = Soft.apply(x, k, sigma, noise)
            (slope,) = torch.autograd.grad(out, x, grad)
            found = {"x": x, "noise": noise, "indicators": out, "grad_output": grad, "grad_x": slope}
            tensors |= {f"c{c}.{name}": tensor.detach().float() for name, tensor in found.items()}
            told.append({"b": b, "d": d, "k": k, "num_samples": samples, "sigma": sigma})
        return tensors, {**REPO, "fn": "PerturbedTopKFunction", "cases": told, "note": NOTE}, margin

    return make


def predictor(cases: list[tuple[int, int, int]]) -> Callable[[int], Made]:
    """A file of the scorer; a case is (B, N, E)."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        tensors: Weights = {}
        told = []
        for c, (b, n, width) in enumerate(cases):
            w, x = scorer_weights(width, generator), normal(generator, b, n, width)
            scores = raw_scores(w, x)
            found = {"x": x, "out": scores[..., None], "minmax": normalised(scores)}
            found |= {f"w.{name}": tensor for name, tensor in w.items()}
            tensors |= {f"c{c}.{name}": tensor.float() for name, tensor in found.items()}
            told.append({"B": b, "N": n, "embed_dim": width})
        return tensors, {**REPO, "fn": "PredictorLG", "cases": told, "note": NOTE}, FAR

    return make


def stage(
    *,
    time: bool,
    swin: bool,
    grid: tuple[int, int, int],
    k: int,
    batch: int = 2,
    dim: int = 8,
    sigma: float = 0.1,
    samples: int = 12,
    stride: int | None = None,
) -> Callable[[int], Made]:
    """A file of one stage by itself."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        t, h, w = grid
        side = math.isqrt(k)
        weights = scorer_weights(2 * dim if time else dim, generator)
        x = normal(generator, batch, t * h * w, dim)
        squares = windows(h, w, side, stride)
        rows, d = (batch, t) if time else (batch * t, len(squares))
        noise = normal(generator, rows, samples, d)
        count, out_tokens = (k, k * h * w) if time else (1, t * side * side)
        grad_out = normal(generator, batch, out_tokens, dim)
        for tensor in (*weights.values(), x):
            tensor.requires_grad_()

        frames = x.reshape(batch, t, h * w, dim)
        if time:
            scores = normalised(raw_scores(weights, torch.cat([frames.mean(2), frames.max(2).values], dim=-1)))
        else:
            tokens = raw_scores(weights, frames.reshape(batch * t, h * w, dim))
            scores = normalised(torch.stack([tokens[:, place].mean(1) for place in squares], dim=1))
        chosen = [top(row.tolist(), count) for row in scores]
        margin = min(gap(row.tolist(), count) for row in scores)
        margin = min(margin, soft_gap(scores.detach(), count, sigma, noise))
        mixture = Soft.apply(scores, count, sigma, noise)  # (rows, count, d)
        if time:
            hard = torch.stack([frames[b, chosen[b]] for b in range(batch)]).flatten(1, 2)
            soft = torch.einsum("bkt,btsc->bksc", mixture, frames).flatten(1, 2)
        else:
            hard = torch.stack(
                [torch.cat([frames[b, i, squares[chosen[b * t + i][0]]] for i in range(t)]) for b in range(batch)]
            )
            crops = torch.stack([frames[:, :, place] for place in squares], dim=2)  # (B, T, L, a * a, C)
            soft = torch.einsum("btl,btlsc->btsc", mixture.reshape(batch, t, -1), crops).flatten(1, 2)
        soft.backward(grad_out)

        def laid(tokens: Tensor | None, size: tuple[int, int, int]) -> Tensor:
            assert tokens is not None
            return tokens.transpose(1, 2).unflatten(2, size) if swin else tokens

        after = (k, h, w) if time else (t, side, side)
        tensors = {"x": laid(x, grid), "out": laid(hard, after), "scores": scores, "train.noise": noise}
        tensors |= {"train.indicator": mixture.transpose(1, 2), "train.out": laid(soft, after)}
        tensors |= {"train.grad_out": laid(grad_out, after), "train.grad_x": laid(x.grad, grid)}
        for name, tensor in weights.items():
            assert tensor.grad is not None
            tensors |= {f"w.score_network.{name}": tensor, f"train.grad.score_network.{name}": tensor.grad}
        stored = {name: tensor.detach().float() for name, tensor in tensors.items()}
        stored["indices"] = torch.tensor(chosen)
        metadata: dict[str, Any] = {**REPO, "fn": "PatchNet", "file": "VideoSwin" if swin else "MViT", "note": NOTE}
        metadata |= {"layout": "bcthw" if swin else "tokens", "type": "time" if time else "space", "stride": stride}
        metadata |= {"B": batch, "T": t, "H": h, "W": w, "C": dim, "k": k, "anchor_size": side}
        metadata |= {"sigma": sigma, "num_samples": samples}
        return stored, metadata, margin

    return make
