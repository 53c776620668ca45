"""Golden files of STA on VideoSwin, from slow code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from parity_files import Made, normal
from parity_reference import sta_stage
from parity_swin import (
    Swin,
    Three,
    Weights,
    applied,
    block,
    block_weights,
    embedded,
    merge,
    normed,
    pick,
    pooled_keys,
    refill,
    sources,
    swin_weights,
)
from torch import Tensor

SOURCE = "specification"


def nearest_file(*, batch: int, t: int, h: int, w: int, k: int) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        keep = random_keep(torch.Generator().manual_seed(seed), batch, t, h * w, k)
        tensors = {"keep": keep, "source": sources(keep, h, w)}
        return tensors, {"kind": "nearest kept token of the same frame", "grid": [h, w], "source": SOURCE}, math.inf

    return make


def block_file(
    *, batch: int, grid: Three, k: int, dim: int, heads: int, window: Three, shift: Three, bias: bool = True
) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        t, h, w = grid
        weights: Weights = {}
        block_weights(weights, generator, "", dim, heads, window, 3, bias)
        keep = random_keep(generator, batch, t, h * w, k)
        x = normal(generator, batch, t, k, dim)
        out = pick(block(weights, "", refill(x, keep, h, w), heads, window, shift), keep)
        tensors = {"x": x, "out": out, **{f"w.{name}": tensor for name, tensor in weights.items()}}
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
        config = {"dim": dim, "num_heads": heads, "window_size": list(window), "shift_size": list(shift)}
        metadata = {"kind": "VideoSwin block on kept tokens = select(block(refill(x)))", "config": config}
        metadata |= {"grid": list(grid), "kept_per_frame": k, "source": SOURCE}
        return {**tensors, "keep": keep, "source": sources(keep, h, w)}, metadata, math.inf

    return make


def model_file(
    *, shape: Swin, batch: int, drops: Sequence[int], directions: Sequence[str] | None
) -> Callable[[int], Made]:
    """A whole model; with directions STA chooses, without them the kept sets are random."""

    def make(seed: int) -> Made:
        generator = torch.Generator().manual_seed(seed)
        w = swin_weights(generator, shape)
        clips = normal(generator, batch, 3, *shape.clip)
        tensors: dict[str, Tensor] = {"x": clips.float()}
        x = embedded(w, clips, shape)
        margin, grids, keep = math.inf, [], None
        for i, (depth, heads) in enumerate(zip(shape.depths, shape.heads, strict=True)):
            name = f"backbone.layers.{i}."
            h, width = x.shape[2:4]
            for j in range(depth):
                entering = x
                shift = tuple(length // 2 if j % 2 else 0 for length in shape.window)
                x = block(w, f"{name}blocks.{j}.", x, heads, shape.window, shift)  # type: ignore[arg-type]
                if keep is not None:
                    kept = pick(x, keep)
                    tensors[f"stage.{i}.block.{j}"] = kept.float()
                    x = refill(kept, keep, h, width)
            if i + 1 == len(shape.depths):
                break
            keys = pooled_keys(w, f"{name}blocks.{depth - 1}.", entering, heads)
            x = merge(w, f"{name}downsample.", x)
            t, h, width = x.shape[1:4]
            grids.append([h, width])
            n = h * width
            if directions is None:
                keep = random_keep(generator, batch, t, n, n - drops[i])
            elif drops[i]:
                found = sta_stage(x.flatten(1, 3), keys.flatten(1, 3), t, drops[i], directions[i] == "backward")
                margin = min(margin, float(found["margin"]))
                keep = (torch.as_tensor(found["kept"]).view(batch, t, -1) % n).sort(-1).values
            else:
                keep = torch.arange(n).expand(batch, t, n)
            tensors[f"keep.{i}"] = keep
            x = refill(pick(x, keep), keep, h, width)
        assert keep is not None
        features = normed(w, "backbone.norm", pick(x, keep)).mean((1, 2))
        tensors["logits"] = applied(w, "cls_head.fc_cls", features).float()
        tensors |= {f"w.{name}": tensor.float() for name, tensor in w.items()}
        how = "given kept indices" if directions is None else "STA scores"
        metadata = {"kind": f"STA on VideoSwin end to end, {how}", "config": shape.config(), "source": SOURCE}
        metadata |= {"directions": directions if directions is None else list(directions)}
        metadata |= {"dropped_per_frame": list(drops), "grids_at_drop": grids}
        metadata |= {"kept_per_frame": [a * b - r for (a, b), r in zip(grids, drops, strict=True)]}
        return tensors, metadata, margin

    return make


def random_keep(generator: torch.Generator, batch: int, t: int, n: int, k: int) -> Tensor:
    """k of n places in every frame, (B, T, k), sorted."""
    return torch.rand(batch, t, n, generator=generator).argsort(-1)[..., :k].sort(-1).values
