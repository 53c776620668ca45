"""Golden files of the DynamicViT and ATS layouts, from slow float64 code of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from parity_files import Made, normal
from parity_vit import Shape, Vit, weights
from torch import Tensor

LAYERS = {"norm1": "input_layer_norm", "attn.qkv": "qkv", "attn.proj": "projection", "norm2": "mlp_layer_norm"}
LAYERS |= {"mlp.fc1": "mlp_1", "mlp.fc2": "mlp_2"}


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def predictor_weights(dim: int, stage: int, generator: torch.Generator) -> dict[str, Tensor]:
    """float32 weights of one predictor with official names."""
    name = f"score_predictor.{stage}"
    half, quarter = dim // 2, dim // 4
    found = {f"{name}.in_conv.0.weight": 1 + 0.1 * torch.randn(dim, generator=generator)}
    found[f"{name}.in_conv.0.bias"] = 0.1 * torch.randn(dim, generator=generator)
    sizes = {
        "in_conv.1": (dim, dim),
        "out_conv.0": (half, dim),
        "out_conv.2": (quarter, half),
        "out_conv.4": (2, quarter),
    }
    for layer, (rows, columns) in sizes.items():
        found[f"{name}.{layer}.weight"] = torch.randn(rows, columns, generator=generator) * 2 * columns**-0.5
        found[f"{name}.{layer}.bias"] = 0.1 * torch.randn(rows, generator=generator)
    return found


def predicted(w: dict[str, Tensor], stage: int, x: Tensor) -> Tensor:
    """Log probabilities (B, n, 2) of x (B, n, C), float64."""
    name, half = f"score_predictor.{stage}", x.shape[-1] // 2

    def linear(layer: str, y: Tensor) -> Tensor:
        return y @ w[f"{name}.{layer}.weight"].T + w[f"{name}.{layer}.bias"]

    normed = layer_norm(x, 1e-5) * w[f"{name}.in_conv.0.weight"] + w[f"{name}.in_conv.0.bias"]
    y = gelu(linear("in_conv.1", normed))
    both = torch.stack([torch.cat([row[:half], sample[:, half:].mean(0)]) for sample in y for row in sample])
    y = linear("out_conv.4", gelu(linear("out_conv.2", gelu(linear("out_conv.0", both.view_as(y))))))
    return y - y.exp().sum(-1, keepdim=True).log()


def dynamicvit_model(
    *, shape: Shape, batch: int, stages: list[int], shares: list[float], size: int | None = None
) -> Callable[[int], Made]:
    """A whole model at inference; shares of the original tokens per stage."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        state = weights(shape, seed)
        for stage in range(len(stages)):
            state |= predictor_weights(shape.dim, stage, generator)
        vit = Vit(shape, state)
        pixels = normal(generator, batch, shape.in_chans, shape.pixels, shape.pixels)
        tensors = {"x": pixels.float(), **{f"w.{name}": tensor for name, tensor in state.items()}}
        x, margin, counts = vit.embed(pixels), math.inf, []
        original = x.shape[1] - 1
        for i in range(shape.depth):
            if i in stages:
                stage = stages.index(i)
                patches = x[:, 1:]
                said = predicted(vit.w, stage, patches)
                keep = int(original * shares[stage])
                ranked, order = said[..., 0].sort(dim=1, descending=True)
                margin = min(margin, float((ranked[:, :-1] - ranked[:, 1:])[:, :keep].min()))
                index = order[:, :keep]
                tensors |= {f"block{i}.pred_in": patches.float(), f"block{i}.log_probs": said.float()}
                tensors[f"block{i}.idx"] = index
                rows = [torch.cat([x[b, :1], patches[b, index[b]]]) for b in range(batch)]
                x = torch.stack(rows)
            x = vit.block(i, x)
            tensors[f"block{i}.out"] = x.float()
            counts.append(x.shape[1] - 1)
        tensors["logits"] = vit.logits(x).float()
        metadata: dict[str, Any] = {"method": "dynamicvit", "kind": "end_to_end", "B": batch, "depth": shape.depth}
        metadata |= {"embed_dim": shape.dim, "img_size": shape.pixels, "patch_size": shape.patch}
        metadata |= {"num_classes": shape.classes, "num_heads": shape.heads, "mlp_ratio": shape.hidden / shape.dim}
        metadata |= {"qkv_bias": shape.qkv_bias, "ln_eps": shape.eps, "n_init": original, "pruning_loc": stages}
        metadata |= {"token_ratio": shares, "token_counts_after_block_excl_cls": counts}
        return tensors, metadata, margin

    return make


def policy_attention(*, batch: int, n: int, dim: int, heads: int, kept: float) -> Callable[[int], Made]:
    """Masked attention, entry by entry."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        x = normal(generator, batch, n, dim)
        policy = (torch.rand(batch, n, 1, generator=generator) < kept).double()
        w = {"qkv.weight": normal(generator, 3 * dim, dim) * dim**-0.5, "qkv.bias": normal(generator, 3 * dim) * 0.2}
        w |= {"proj.weight": normal(generator, dim, dim) * dim**-0.5, "proj.bias": normal(generator, dim) * 0.2}
        w = {name: tensor.float().double() for name, tensor in w.items()}
        parts = (x @ w["qkv.weight"].T + w["qkv.bias"]).split(dim, dim=-1)
        q, k, v = (torch.stack(part.split(dim // heads, dim=-1), 1) for part in parts)
        logits = q @ k.transpose(2, 3) / math.sqrt(dim // heads)
        attention = masked_loops(logits, policy[..., 0])
        out = torch.cat(list((attention @ v).unbind(1)), -1) @ w["proj.weight"].T + w["proj.bias"]
        given = logits.float()
        tensors = {"x": x.float(), "policy": policy.float(), "out": out.float(), "logits_in": given}
        tensors["attn_out"] = masked_loops(given.double(), policy[..., 0]).float()
        tensors |= {f"w.{name}": tensor.float() for name, tensor in w.items()}
        metadata = {"method": "dynamicvit", "kind": "function", "B": batch, "N": n, "C": dim, "num_heads": heads}
        return tensors, metadata | {"eps": 1e-6}, math.inf

    return make


def masked_loops(logits: Tensor, policy: Tensor, eps: float = 1e-6) -> Tensor:
    """(B, H, N, N) weights where query i sees key j if that is kept, or is i itself."""
    out = torch.zeros_like(logits)
    n = logits.shape[-1]
    for b in range(len(logits)):
        for h in range(logits.shape[1]):
            for i in range(n):
                row = logits[b, h, i]
                seen = [(row[j] - row.max()).exp() * (1.0 if i == j else policy[b, j]) for j in range(n)]
                total = sum(seen) + eps
                for j in range(n):
                    out[b, h, i, j] = (seen[j] + eps / n) / total
    return out


def ats_blocks(
    *, shape: Shape, side: int, frames: int, fraction: float, resets: list[int], change: float = 0.6
) -> Callable[[int], Made]:
    """Plain blocks with ATS as published: as many streams as heads, scores summed over them."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        n, b = side * side + 1, shape.heads
        state = {name: t for name, t in weights(shape, seed).items() if name.startswith("blocks.")}
        vit = Vit(shape, state)
        positions = normal(generator, 1, n, shape.dim) * 0.5
        tensors = {"w.position_encoding.encoding": positions.float()}
        for name, tensor in state.items():
            block, layer, end = name.split(".")[1], ".".join(name.split(".")[2:-1]), name.split(".")[-1]
            tensors[f"w.blocks.{block}.{LAYERS[layer]}.{end}"] = tensor
        positions = positions.float().double()
        still = normal(generator, 1, b, n, shape.dim)
        video = (still + change * normal(generator, frames, b, n, shape.dim)).float().double()
        margin, outputs, last = math.inf, [], dict[int, Tensor]()
        counts = dict.fromkeys(("linear_flops", "bias_flops", "matmul_flops", "add_flops", "gate_flops"), 0)
        counts["add_flops"] = b * n * shape.dim
        for t in range(frames):
            if t in resets:
                last.clear()
            x = video[t] + positions
            for i in range(shape.depth):
                entering = x.shape[1]
                keep = int(fraction * (entering - 1)) + 1
                branch, attention, _ = vit.attend(i, x)
                v = vit.qkv(i, x)[2]
                score = attention[..., 0] * v.norm(dim=-1)
                score = score / score[..., 1:].sum(-1, keepdim=True)
                score[..., 0] = math.inf
                ranked, order = score.sum(0).sort(dim=1, descending=True)  # over the batch, as published
                if keep < entering:
                    margin = min(margin, float((ranked[:, keep - 1] - ranked[:, keep]).min()))
                index = order[:, :keep].sort(dim=1).values
                if i in last:
                    index = torch.stack([ordered(new.tolist(), old.tolist()) for new, old in zip(index, last[i])])
                last[i] = index
                tensors[f"ats.t{t}.blocks.{i}"] = index
                y = vit.plus(i, 1, x, branch)
                x = vit.feed(i, torch.stack([sample[kept] for sample, kept in zip(y, index)]))
                if t == 0:
                    d, m = shape.dim, shape.hidden
                    counts["linear_flops"] += b * (entering * 3 * d * d + keep * (d * d + 2 * d * m))
                    counts["bias_flops"] += b * (entering * 3 * d + keep * (d + d + m))
                    counts["matmul_flops"] += b * (entering * entering * d + keep * entering * d)
                    counts["add_flops"] += b * keep * d * 2
            outputs.append(x.float())
        tensors |= {"x": video.float(), "out": torch.stack(outputs), "vanilla_out": torch.stack(outputs)}
        table = torch.tensor([list(counts.values())] * frames)
        tensors |= {"counts": table, "vanilla_counts": table.clone()}
        config = {
            "dim": shape.dim,
            "heads": shape.heads,
            "mlp_ratio": shape.hidden // shape.dim,
            "ats_fraction": fraction,
        }
        metadata: dict[str, Any] = {
            "repo": "WISION-Lab/eventful-transformer",
            "model": "ViTBackbone",
            "T": frames,
            "B": b,
        }
        metadata |= {"block_class": "Block", "block_config": config, "depth": shape.depth, "has_class_token": True}
        metadata |= {"input_size": [side, side], "position_encoding_size": [side, side], "window_indices": []}
        metadata |= {"windowed_class": None, "windowed_overrides": None, "policy": None, "policy_kwargs": {}}
        metadata |= {"static_tokens": [], "reset_before_frames": resets, "count_keys": list(counts)}
        return tensors, metadata, margin

    return make


def ordered(new: list[int], old: list[int]) -> Tensor:
    """Who stays keeps the place; newcomers, rising, take the places of who left."""
    newcomers = [token for token in sorted(new) if token not in old]
    return torch.tensor([token if token in new else newcomers.pop(0) for token in old])
