"""vid-TLDR a second time, one sample after another in float64, nothing of tokred; and golden files made from it."""

from __future__ import annotations

import math
from typing import Any

import torch
from parity_files import Made, normal
from parity_reference import FAR, gap, unit
from parity_vit import Shape, Vit, weights
from torch import Tensor

POOL = "unweighted mean over remaining tokens after encoder.norm, then pool_norm"
Step = dict[str, Tensor]


def amount(r: float, n: int) -> int:
    """Tokens merged of n: a share below one, a number from one on, at most half."""
    return max(0, min(int(n * r) if r < 1 else int(r), n // 2))


def sharpness(attention: Tensor) -> Tensor:
    """Negative entropy of each row of the head-averaged map (B, H, N, N): (B, N)."""
    mean = attention.mean(1)
    return (mean * mean.log()).sum(-1)


def saliency(e: Tensor) -> Tensor:
    """The five lines of the published chain, on (N,)."""
    s = e - e.min()
    s = s / s.max()
    background = s < s.mean()
    s = s - s.mean()
    s = s / s.max()
    return torch.where(background, 0.0, s)


def merge(x: Tensor, score: Tensor, mass: Tensor, r: int) -> tuple[Step, float]:
    """One merge of (N, C) tokens: what came of it, and the closest decision on the (cosine + 1) / 2 scale."""
    n, metric = len(x), unit(x)
    closeness = (metric[0::2] @ metric[1::2].T + 1) / 2
    ranks = sorted(range(len(closeness)), key=lambda i: -float(closeness[i].max()))
    sources, unmerged = ranks[:r], sorted(ranks[r:])
    margin = FAR
    if r < len(ranks):
        margin = float(closeness[ranks[r - 1]].max() - closeness[ranks[r]].max())
    features, masses, origin = x * mass[:, None], mass.clone(), torch.eye(n, dtype=x.dtype)
    targets = []
    for s in sources:
        b = int(closeness[s].argmax())
        margin = min(margin, gap(closeness[s].sort().values[-2:].tolist()))
        targets.append(b)
        share = score[2 * s] * mass[2 * s]
        features[2 * b + 1] += share * x[2 * s]
        masses[2 * b + 1] += share
        origin[2 * b + 1, 2 * s] = score[2 * s]
    left = [2 * i for i in unmerged] + list(range(1, n, 2))
    out = {
        "x": (features / masses[:, None])[left],
        "size": masses[left][:, None],
        "source": origin[left],
        "unm_idx": torch.tensor(unmerged, dtype=torch.int64),
        "src_idx": torch.tensor(sources),
        "dst_idx": torch.tensor(targets),
        "src_score": score[[2 * s for s in sources]],
    }
    return out, margin


def merges(x: Tensor, score: Tensor, mass: Tensor, r: int) -> tuple[Step, float]:
    """``merge`` for every sample of a batch."""
    done = [merge(*one, r) for one in zip(x, score, mass, strict=True)]
    return {name: torch.stack([out[name] for out, _ in done]) for name in done[0][0]}, min(m for _, m in done)


def _single(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def function(*, batch: int, n: int, dim: int, heads: int, width: int, r: float, sized: bool, traced: bool) -> Any:
    """A file of one merge."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        x = normal(generator, batch, n, dim)
        q, k = (1.5 * normal(generator, batch, heads, n, width) for _ in range(2))
        mass = torch.ones(batch, n, dtype=torch.float64)
        attention = (q @ k.transpose(2, 3) / math.sqrt(width)).softmax(-1)
        e = sharpness(attention)
        score = torch.stack([saliency(row) for row in e])
        tensors = {"x": x, "q": q, "k": k, "attn": attention, "score": score[..., None]}
        tensors |= {"derived.neg_entropy": e, "derived.col_mean": attention.mean((1, 2))}
        if sized:
            mass = torch.randint(1, 7, (batch, n), generator=generator).double()
            tensors["size_in"] = mass[..., None]
        count, margin = amount(r, n), FAR
        metadata: dict[str, Any] = {"method": "vid_tldr", "kind": "function", "B": batch, "N": n, "C": dim, "r": r}
        metadata |= {"num_heads": heads, "head_dim": width, "scale": "head_dim**-0.5", "size_in_given": sized}
        metadata |= {"r_effective": count, "noop": count == 0, "source_trace": traced and count > 0}
        if count:
            out, margin = merges(x, score, mass, count)
            tensors |= {"x_out": out.pop("x"), "size_out": out.pop("size")}
            source = out.pop("source")
            tensors |= out | ({"source_out": source} if traced else {})
            metadata["n_background_sources"] = (out["src_score"] == 0).sum(1).tolist()
        else:
            tensors["x_out"] = x
        return _single(tensors), metadata, margin

    return make


def model(*, shape: Shape, batch: int, r: list[float], use: bool = True, extra: int = 0) -> Any:
    """A file of a whole encoder: two norms around the mean over tokens.

    Args:
        extra: rows and columns of pixels too many, which the convolution drops.
    """

    def make(seed: int) -> Made:
        state = weights(shape, seed)
        generator = torch.Generator().manual_seed(seed + 1)
        clips = normal(generator, batch, shape.in_chans, shape.frames or 1, *2 * (shape.pixels + extra,)).float()
        state["norm.weight"] = 1 + 0.1 * torch.randn(shape.dim, generator=generator)
        state["norm.bias"] = 0.1 * torch.randn(shape.dim, generator=generator)
        vit = Vit(shape, state)
        x, size, margin = vit.embed(clips.double()), None, FAR
        tensors: dict[str, Tensor] = {"x": clips}
        counts, reducing = [], []
        for i, entry in enumerate(r[: shape.depth]):
            q, k, _ = vit.qkv(i, x)
            unbiased = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
            x = vit.plus(i, 1, x, vit.attend(i, x, None if size is None else size.log())[0])
            count = amount(entry, x.shape[1]) if use else 0
            if count:
                e = sharpness(unbiased)
                score = torch.stack([saliency(row) for row in e])
                mass = torch.ones(x.shape[:2], dtype=torch.float64) if size is None else size
                out, closest = merges(x, score, mass, count)
                margin = min(margin, closest)
                tensors |= {f"block{i}.score": score[..., None], f"block{i}.neg_entropy": e, f"block{i}.x_before": x}
                x, size = out.pop("x"), out["size"][..., 0]
                out.pop("source")
                tensors |= {f"block{i}.x_after": x} | {f"block{i}.{name}": value for name, value in out.items()}
                reducing.append(i)
            x = vit.feed(i, x)
            counts.append(x.shape[1])
            tensors[f"block{i}.out"] = x
        normed = vit.norm("norm", x)
        pooled = vit.norm("fc_norm", normed.mean(1))
        tensors |= {"x_vis": normed, "pooled": pooled[:, None], "logits": vit.linear("head", pooled)}
        tensors["pos_embed"] = state.pop("pos_embed")
        for name in ("weight", "bias"):
            tensors[f"w.pool_norm.{name}"] = state.pop(f"fc_norm.{name}")
            tensors[f"extra.head.{name}"] = state.pop(f"head.{name}")
        tensors |= {f"w.encoder.{name}": tensor for name, tensor in state.items()}
        metadata = {"method": "vid_tldr", "kind": "end_to_end", "B": batch, "r": r, "use": use, "pool": POOL}
        metadata |= {"embed_dim": shape.dim, "depth": shape.depth, "num_heads": shape.heads, "patch_size": shape.patch}
        metadata |= {"mlp_ratio": shape.hidden / shape.dim, "tubelet_size": shape.tubelet, "num_frames": shape.frames}
        metadata |= {"img_size": shape.pixels + extra, "num_classes": shape.classes, "ln_eps": shape.eps}
        metadata |= {"qkv_bias": "q and v only" if shape.qkv_bias else "none", "reducing_blocks": reducing}
        metadata |= {"n_tokens_input": shape.patches, "token_counts_after_block": counts}
        return _single(tensors), metadata, margin

    return make
