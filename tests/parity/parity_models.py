"""Golden files of the end-to-end layouts, from the reference implementations of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from parity_files import Made, normal
from parity_reference import evit_step, membership, sta_stage, tome_step
from parity_vit import Shape, Vit, weights
from torch import Tensor


def start(
    shape: Shape, batch: int, seed: int, extra: tuple[int, int] = (0, 0)
) -> tuple[Vit, Tensor, dict[str, Tensor]]:
    """A model, its input, and the tensors that every end-to-end file holds."""
    state = weights(shape, seed)
    length = () if shape.frames is None else (shape.frames + extra[0],)
    generator = torch.Generator().manual_seed(seed + 1)
    pixels = normal(generator, batch, shape.in_chans, *length, *(2 * [shape.pixels + extra[1]]))
    return Vit(shape, state), pixels, {"x": pixels.float()} | {f"w.{name}": tensor for name, tensor in state.items()}


def video_config(shape: Shape) -> dict[str, Any]:
    """The arguments of the official video constructor."""
    config = {"patch_size": shape.patch, "in_chans": shape.in_chans, "num_classes": shape.classes}
    config |= {"mlp_ratio": shape.hidden / shape.dim, "all_frames": shape.frames, "tubelet_size": shape.tubelet}
    config |= {"img_size": shape.pixels, "embed_dim": shape.dim, "depth": shape.depth, "num_heads": shape.heads}
    config |= {"qkv_bias": shape.qkv_bias, "norm_eps": shape.eps, "use_learnable_pos_emb": shape.learned}
    config |= {"init_values": 0.1 if shape.gamma else 0.0, "use_mean_pooling": shape.pool != "token"}
    return config


def image_config(shape: Shape) -> dict[str, Any]:
    """The arguments of the image constructor, as ToMe's files give them."""
    config = {"img_size": shape.pixels, "patch_size": shape.patch, "embed_dim": shape.dim, "depth": shape.depth}
    return config | {"num_heads": shape.heads, "num_classes": shape.classes, "norm_eps": shape.eps}


def videomae(*, shape: Shape, batch: int, extra: tuple[int, int] = (0, 0)) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        vit, pixels, tensors = start(shape, batch, seed, extra)
        x = vit.embed(pixels)
        tensors["embed"] = x.float()
        if not shape.learned:
            tensors["pos_embed_table"] = vit.positions().float()
        for i in range(shape.depth):
            if i != 1:
                tensors[f"block.{i}.attn_out"] = vit.attend(i, x)[0].float()
            x = vit.block(i, x)
            tensors[f"block.{i}"] = x.float()
        tensors |= {"features": vit.features(x).float(), "logits": vit.logits(x).float()}
        return tensors, {"kind": "VideoMAE ViT end to end", "config": video_config(shape)}, math.inf

    return make


def position_table(n: int, dim: int) -> Callable[[int], Made]:
    def make(_: int) -> Made:
        side = math.isqrt(n) + 1
        shape = Shape(dim=dim, depth=1, heads=1, hidden=1, patch=1, pixels=side, classes=1, frames=2, learned=False)
        return (
            {"table": Vit(shape, {}).positions()[0, :n].float()},
            {"kind": "sin-cos position table", "n": n, "d": dim},
            math.inf,
        )

    return make


def sta_models(*, shape: Shape, batch: int, amounts: list[int]) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        vit, pixels, tensors = start(shape, batch, seed)
        if not shape.learned:
            tensors["pos_embed_table"] = vit.positions().float()
        at = [0, shape.depth // 3, 2 * shape.depth // 3]
        told, margin = {}, math.inf
        for r in [0, *amounts]:
            x, counts = vit.embed(pixels), [shape.patches]
            original = torch.arange(shape.patches).expand(batch, -1)
            for i in range(shape.depth):
                keys = vit.attend(i, x)[2]
                x = vit.block(i, x)
                if r and i in at:
                    s = at.index(i)
                    step = sta_stage(x, keys, (8, 4, 2)[s], r, backward=s == 1)
                    kept, margin = torch.as_tensor(step["kept"]), min(margin, float(step["margin"]))
                    x = torch.stack([features[k] for features, k in zip(x, kept, strict=True)])
                    original = original.gather(1, kept)
                    tensors |= {f"r{r}.stage{s + 1}.kept": kept, f"r{r}.stage{s + 1}.kept_original": original}
                    counts.append(x.shape[1])
            logits = vit.logits(x)
            tensors[f"r{r}.logits"] = logits.float()
            told[str(r)] = {"block_index": at, "tokens": counts, "min_margin": margin} if r else {"note": ""}
            if r:
                tensors[f"r{r}.logits_float64"] = logits
        main = amounts[-1]
        tensors["logits"] = tensors[f"r{main}.logits"]
        metadata = {"kind": "sta end to end", "config": video_config(shape), "per_r": told, "batch": batch}
        return tensors, metadata | {"r_values": amounts, "main_r": main}, margin

    return make


def tome_models(*, shape: Shape, batch: int, model: str, runs: dict[str, dict[str, Any]]) -> Callable[[int], Made]:
    """Model "video" composes ToMe with the video backbone; runs give r, r_list, prop_attn, and pool there."""

    def make(seed: int) -> Made:
        vit, pixels, tensors = start(shape, batch, seed)
        n, margin, told = shape.prefix + shape.patches, math.inf, {}
        for name, run in runs.items():
            x, size = vit.embed(pixels), torch.ones(batch, n, dtype=torch.float64)
            effective, counts, maps = [], [n], [[] for _ in range(batch)]
            for i, r in enumerate(run["r_list"]):
                branch, _, keys = vit.attend(i, x, size.log() if run["prop_attn"] else None)
                x, size, matches = tome_step(vit.plus(i, 1, x, branch), keys, size, r, shape.prefix)
                if matches:
                    margin = min([margin, *(m.margin for m in matches)])
                    tensors[f"{name}.merge{len(effective)}.assign"] = torch.tensor([m.assign for m in matches])
                    effective.append(matches[0].r)
                    counts.append(x.shape[1])
                    for chain, m in zip(maps, matches, strict=True):
                        chain.append(m.assign)
                x = vit.feed(i, x)
            weighted = run.get("pool", "weighted" if model == "mae" else "mean") == "weighted"
            pooled = Vit(Shape(**{**shape.__dict__, "pool": "mass"}), {}) if weighted else vit
            pooled.w = vit.w
            logits = pooled.logits(x, size)
            tensors |= {f"{name}.logits": logits.float(), f"{name}.logits_float64": logits}
            if effective:
                tensors |= {f"{name}.size": size[..., None].float(), f"{name}.source": membership(maps, n)}
            told[name] = {**run, "r_effective": effective, "tokens": counts if effective else [], "margins": None}
        main = next(iter(runs))
        tensors["logits"] = tensors[f"{main}.logits"]
        metadata: dict[str, Any] = {"batch": batch, "runs": told, "main_run": main}
        if model == "video":
            kind = "tome composed on a VideoMAE-style video ViT"
            return tensors, metadata | {"kind": kind, "config": video_config(shape)}, margin
        kind = "tome end to end"
        return tensors, metadata | {"kind": kind, "model": model, "config": image_config(shape)}, margin

    return make


def evit_models(
    *,
    shape: Shape,
    batch: int,
    fuse: bool,
    rates: list[float],
    runtime: float | list[float | None] | None = None,
    counts: int | list[int | None] | None = None,
    larger: int = 0,
) -> Callable[[int], Made]:
    """Per block a configured rate; over all or per block a run-time rate and count; images larger by some pixels."""

    def make(seed: int) -> Made:
        vit, pixels, tensors = start(shape, batch, seed, (0, larger))
        pixels.requires_grad_()
        observed = vit.w["blocks.0.attn.qkv.weight"].requires_grad_()
        x, margin, original, left = vit.embed(pixels), math.inf, None, []
        entering = x.shape[1] - 1
        for i in range(shape.depth):
            branch, attention, _ = vit.attend(i, x)
            x = vit.plus(i, 1, x, branch)
            n = x.shape[1] - 1
            keep = _count(n, rates[i], _at(runtime, i), _at(counts, i))
            if keep < n:
                step = evit_step(x, attention, keep, fuse)
                margin, index = min(margin, float(step["margin"])), torch.as_tensor(step["idx"])
                original = index if original is None else original.gather(1, index)
                tensors |= {f"block{i}.idx": index, f"block{i}.orig_idx": original, f"block{i}.x_before": x.float()}
                tensors[f"block{i}.cls_attn"] = torch.as_tensor(step["cls_attn"]).float()
                x = torch.as_tensor(step["x_after"])
                tensors[f"block{i}.x_after"] = x.float()
                if fuse:
                    original = torch.nn.functional.pad(original, (0, 1), value=-1)
            x = vit.feed(i, x)
            left.append(x.shape[1] - 1)
            tensors[f"block{i}.out"] = x.float()
        logits = vit.logits(x)
        cotangent = normal(torch.Generator().manual_seed(seed + 2), *logits.shape)
        (logits * cotangent).sum().backward()
        assert pixels.grad is not None
        assert observed.grad is not None
        tensors |= {"logits": logits.float(), "grad.cotangent": cotangent.float(), "grad.x": pixels.grad.float()}
        tensors["grad.blocks.0.attn.qkv.weight"] = observed.grad.float()
        metadata = {"method": "evit", "kind": "end_to_end", "B": batch, "depth": shape.depth, "embed_dim": shape.dim}
        metadata |= {"img_size": shape.pixels, "patch_size": shape.patch, "num_classes": shape.classes}
        metadata |= {"num_heads": shape.heads, "mlp_ratio": shape.hidden / shape.dim, "qkv_bias": shape.qkv_bias}
        metadata |= {"ln_eps": shape.eps, "fuse_token": fuse, "keep_rate": rates, "runtime_keep_rate": runtime}
        metadata |= {"runtime_tokens": counts}
        metadata |= {"n_tokens_input_excl_cls": entering, "token_counts_after_block_excl_cls": left}
        return tensors, metadata, margin

    return make


def _count(n: int, rate: float, runtime: float | None, tokens: float | None) -> int:
    if tokens is not None:
        return int(tokens)
    now = rate if runtime is None else runtime
    return math.ceil(now * n) if rate < 1 and now < 1 else n


def _at(value: Any, i: int) -> Any:
    return value[i] if isinstance(value, list) else value
