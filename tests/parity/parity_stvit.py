"""Golden files of the STViT layouts, from slow float64 code of their own: loops over windows, heads and offsets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from parity_files import Made, normal
from parity_pruning import gelu, layer_norm
from torch import Tensor

Weights = dict[str, Tensor]
EPS = 1e-5
CONFIG = {"relative_pos": False, "local": False, "window_size": None}


def layer_weights(
    dim: int, hidden: int, g: torch.Generator, *, bias: bool = True, table: int = 0, heads: int = 1, conv: bool = False
) -> Weights:
    """float32 weights of a cross layer with official names; a table has so many offsets."""

    def linear(name: str, rows: int, columns: int, biased: bool = True) -> None:
        w[f"{name}.weight"] = torch.randn(rows, columns, generator=g) * 1.5 * columns**-0.5
        if biased:
            w[f"{name}.bias"] = 0.2 * torch.randn(rows, generator=g)

    w: Weights = {}
    for norm in ("norm1", "norm2"):
        w[f"{norm}.weight"] = 1 + 0.1 * torch.randn(dim, generator=g)
        w[f"{norm}.bias"] = 0.1 * torch.randn(dim, generator=g)
    linear("attn.q", dim, dim, bias)
    linear("attn.kv", 2 * dim, dim, bias)
    linear("attn.proj", dim, dim)
    linear("mlp.fc1", hidden, dim)
    linear("mlp.fc2", dim, hidden)
    for scale in ("layer_scale_1", "layer_scale_2"):
        w[scale] = 0.5 + 0.2 * torch.randn(dim, generator=g)
    if table:
        w["attn.relative_position_bias_table"] = torch.randn(table, heads, generator=g)
    if conv:
        w["conv_pos.proj.0.weight"] = 0.3 * torch.randn(dim, 1, 3, 3, generator=g)
        w["conv_pos.proj.0.bias"] = 0.1 * torch.randn(dim, generator=g)
    return w


def norm1(w: Weights, x: Tensor) -> Tensor:
    return layer_norm(x, EPS) * w["norm1.weight"].double() + w["norm1.bias"].double()


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ w[f"{name}.weight"].double().T
    return y + w[f"{name}.bias"].double() if f"{name}.bias" in w else y


def attend(w: Weights, q: Tensor, kv: Tensor, heads: int, side: int = 0) -> Tensor:
    """One sample: q (M, C), keys beside values (K, 2C); with a side, a bias per offset of side x side tokens."""
    k, v = kv.chunk(2, dim=1)
    d = q.shape[1] // heads
    outs = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        logits = q[:, part] @ k[:, part].T / math.sqrt(d)
        if side:
            for i in range(side * side):
                for j in range(side * side):
                    down, across = i // side - j // side + side - 1, i % side - j % side + side - 1
                    row = down * (2 * side - 1) + across
                    logits[i, j] += w["attn.relative_position_bias_table"][row, h].double()
        outs.append(logits.softmax(-1) @ v[:, part])
    return linear(w, "attn.proj", torch.cat(outs, dim=1))


def mlp(w: Weights, x: Tensor, scaled: bool = True) -> Tensor:
    inner = layer_norm(x, EPS) * w["norm2.weight"].double() + w["norm2.bias"].double()
    y = linear(w, "mlp.fc2", gelu(linear(w, "mlp.fc1", inner)))
    return x + (w["layer_scale_2"].double() * y if scaled else y)


def cross(w: Weights, x: Tensor, y: Tensor, heads: int, side: int = 0, residual: bool = True) -> Tensor:
    """One sample through a cross layer."""
    keys = linear(w, "attn.kv", norm1(w, y))
    out = attend(w, linear(w, "attn.q", norm1(w, x)), keys, heads, side)
    start = x if residual else 0 * x
    return mlp(w, start + w["layer_scale_1"].double() * out)


def batched(function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    return torch.stack([function(*sample) for sample in zip(*xs, strict=True)])


def pooled(frame: Tensor, side: int) -> Tensor:
    """One map (rows, columns, C) to (side * side, C)."""
    h, w, _ = frame.shape
    cells = []
    for i in range(side):
        for j in range(side):
            rows = range(i * h // side, -(-(i + 1) * h // side))
            columns = range(j * w // side, -(-(j + 1) * w // side))
            cells.append(torch.stack([frame[r, c] for r in rows for c in columns]).amax(0))
    return torch.stack(cells)


def pool_file(*, windows: int, dim: int, window: int, side: int) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        x = normal(torch.Generator().manual_seed(seed), windows, dim, window, window)
        out = torch.stack([pooled(one.permute(1, 2, 0), side) for one in x])
        told = {"kind": "intra-window spatial initialisation", "window": window, "samples_per_side": side}
        return {"x": x.float(), "out": out.float()}, told, math.inf

    return make


def layer_file(*, dim: int, heads: int, hidden: int, role: str, bias: bool = True) -> Callable[[int], Made]:
    """A cross layer: step2 (with centres), recovery, local (2 x 2 groups of 4 x 4, biased), full (3 x 3, biased)."""

    def make(seed: int) -> Made:
        g = torch.Generator().manual_seed(seed)
        side = {"local": 2, "full": 3}.get(role, 0)
        count = {"step2": 5, "recovery": 12, "local": 16, "full": 9}[role]
        w = layer_weights(dim, hidden, g, bias=bias, table=(2 * side - 1) ** 2 if side else 0, heads=heads)
        tensors: dict[str, Tensor] = {"x": normal(g, 2, count, dim)}
        told: dict[str, Any] = {"kind": role, "concat_x_before_y": role == "step2"}
        told["config"] = {**CONFIG, "dim": dim, "num_heads": heads, "mlp_ratio": hidden / dim, "qkv_bias": bias}
        told["config"] |= {"relative_pos": side > 0, "local": role == "local", "window_size": side or None}
        x = tensors["x"]
        if not side:
            tensors["y"] = normal(g, 2, 7, dim)
        if role == "step2":
            tensors["global"] = normal(g, 1, count, dim)
            both = torch.cat([x, tensors["y"]], dim=1)
            out = batched(lambda s, y: cross(w, s + tensors["global"][0], y, heads), x, both)
        elif role == "recovery":
            out = batched(lambda s, y: cross(w, s, y, heads), x, tensors["y"])
        elif role == "full":
            out = batched(lambda s: cross(w, s, s, heads, side), x)
        else:
            out = batched(lambda s: grouped(w, s, 4, side, heads), x)
        made = {name: t.float() for name, t in {**tensors, "out": out}.items()}
        return {**made, **{f"w.{name}": t for name, t in w.items()}}, told, math.inf

    return make


def grouped(w: Weights, x: Tensor, columns: int, side: int, heads: int) -> Tensor:
    """One sample in raster order, attention inside side x side groups."""
    out = torch.empty_like(x)
    biased = side if "attn.relative_position_bias_table" in w else 0
    for top in range(0, len(x) // columns, side):
        for left in range(0, columns, side):
            places = [(top + i) * columns + left + j for i in range(side) for j in range(side)]
            out[places] = cross(w, x[places], x[places], heads, biased)
    return out


def window_step(
    w: Weights, x: Tensor, side: int, heads: int, shortcut: bool, given: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """One sample (196, C): queries and keys per window, and the tokens in raster order."""
    maps = x.unflatten(0, (14, 14))
    raster = torch.empty(2 * side, 2 * side, x.shape[1], dtype=x.dtype)
    queries, keys = [], []
    for i in range(2):
        for j in range(2):
            start = pooled(maps[7 * i : 7 * i + 7, 7 * j : 7 * j + 7], side)
            if given is not None:
                block = given.unflatten(0, (2 * side, 2 * side))[i * side : i * side + side, j * side : j * side + side]
                start = block.flatten(0, 1)
            if "conv_pos.proj.0.weight" in w:
                start = start + convolved(w, start.unflatten(0, (side, side))).flatten(0, 1)
            around = maps[4 * i : 4 * i + 10, 4 * j : 4 * j + 10].flatten(0, 1)
            both = torch.cat([start, around])
            queries.append(norm1(w, start))
            keys.append(norm1(w, both))
            made = cross(w, start, both, heads, residual=shortcut)
            raster[i * side : i * side + side, j * side : j * side + side] = made.unflatten(0, (side, side))
    return torch.stack(queries), torch.stack(keys), raster.flatten(0, 1)


def convolved(w: Weights, x: Tensor) -> Tensor:
    """A depthwise 3 x 3 convolution of (side, side, C), zeros around."""
    side = len(x)
    kernel, out = w["conv_pos.proj.0.weight"].double(), x.new_zeros(x.shape)
    for i in range(side):
        for j in range(side):
            out[i, j] = w["conv_pos.proj.0.bias"].double()
            for a in range(3):
                for b in range(3):
                    if 0 <= i + a - 1 < side and 0 <= j + b - 1 < side:
                        out[i, j] += kernel[:, 0, a, b] * x[i + a - 1, j + b - 1]
    return out


def window_file(*, dim: int, heads: int, side: int, shortcut: bool, conv: bool, given: bool) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        g = torch.Generator().manual_seed(seed)
        w = layer_weights(dim, 2 * dim, g, conv=conv)
        x = normal(g, 2, 196, dim)
        y = normal(g, 2, 4 * side * side, dim) if given else None
        rows = [window_step(w, x[i], side, heads, shortcut, None if y is None else y[i]) for i in range(2)]
        parts = [torch.stack(part) for part in zip(*rows, strict=True)]
        tensors = {"x": x, "query_normed": parts[0].flatten(0, 1), "keys_normed": parts[1].flatten(0, 1)}
        tensors["out"] = parts[2]
        if y is not None:
            tensors["y"] = y
        config = {"dim": dim, "num_heads": heads, "window_size": 7, "sample_window_size": side, "mlp_ratio": 2.0}
        told = {"kind": "step 1", "config": {**config, "qkv_bias": True, "use_conv_pos": conv, "shortcut": shortcut}}
        made = {name: t.float() for name, t in tensors.items()}
        return {**made, **{f"w.{name}": t for name, t in w.items()}}, told, math.inf

    return make


def full_block(w: Weights, x: Tensor, heads: int) -> Tensor:
    """One sample (196, C) through a block of attention inside 7 x 7 windows."""
    out = torch.empty_like(x)
    qkv = linear(w, "attn.qkv", norm1(w, x))
    for top in (0, 7):
        for left in (0, 7):
            places = [(top + i) * 14 + left + j for i in range(7) for j in range(7)]
            out[places] = attend(w, qkv[places, : x.shape[1]], qkv[places, x.shape[1] :], heads, 7)
    return mlp(w, x + out, scaled=False)


def stage_file(
    *, dim: int, heads: int, side: int, units: int, shortcut: bool, conv: bool, relative: bool, centres: bool
) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        g = torch.Generator().manual_seed(seed)
        x = normal(g, 1, 196, dim)
        weights: Weights = {}
        for i in range(6 * units):
            tables = {0: 169, 3: (2 * side - 1) ** 2 * relative, 4: (4 * side - 1) ** 2 * relative}
            w = layer_weights(dim, 2 * dim, g, table=tables.get(i % 6, 0), heads=heads, conv=conv and i % 6 == 1)
            if i % 6 == 0:
                for kind in ("weight", "bias"):
                    w[f"attn.qkv.{kind}"] = torch.cat([w.pop(f"attn.q.{kind}"), w.pop(f"attn.kv.{kind}")])
                del w["layer_scale_1"], w["layer_scale_2"]
            weights |= {f"blocks.{i}.{name}": t for name, t in w.items()}
        shift = normal(g, 1, 4 * side * side, dim) if centres else None
        if shift is not None:
            weights["semantic_token2"] = shift.float()
        outs = run_stage(weights, x[0], side, heads, units, shortcut, relative, None if shift is None else shift[0])
        tensors = {"x": x.float(), **{f"block.{i}": y[None].float() for i, y in enumerate(outs)}}
        tensors["out"] = outs[-1][None].float()
        config = {"input_resolution": [14, 14], "window_size": 7, "sample_window_size": side, "embed_dim": dim}
        config |= {"depth": 6 * units, "num_heads": heads, "relative_pos": relative, "use_conv_pos": conv}
        config |= {"shortcut": shortcut, "use_global": centres}
        told = {"kind": "dumbbell", "config": config, "patch_merging_after": False}
        told["tokens_per_block"] = [len(y) for y in outs]
        return {**tensors, **{f"w.{name}": t for name, t in weights.items()}}, told, math.inf

    return make


def run_stage(
    weights: Weights, x: Tensor, side: int, heads: int, units: int, shortcut: bool, relative: bool, shift: Tensor | None
) -> list[Tensor]:
    """One sample through the units, tokens after each layer."""
    outs = []
    for unit in range(units):
        layers = []
        for role in range(6):
            prefix = f"blocks.{6 * unit + role}."
            layers.append({k.removeprefix(prefix): t for k, t in weights.items() if k.startswith(prefix)})
        x = full_block(layers[0], x, heads)
        first = window_step(layers[1], x, side, heads, shortcut)[2]
        start = first if unit or shift is None else first + shift
        second = cross(layers[2], start, torch.cat([first, x]), heads)
        local = grouped(layers[3], second, 2 * side, side, heads)
        both = cross(layers[4], local, local, heads, 2 * side if relative else 0)
        outs += [x, first, second, local, both]
        x = cross(layers[5], x, both, heads)
        outs.append(x)
    return outs


def columnar_file(
    *, grid: tuple[int, int], dim: int, heads: int, side: int, base: int, stgm: int, tail: int, centres: bool
) -> Callable[[int], Made]:
    def make(seed: int) -> Made:
        g = torch.Generator().manual_seed(seed)
        layers = {
            f"{name}.{i}": layer_weights(dim, 3 * dim, g)
            for name, count in (("base", base), ("stgm", stgm), ("tail", tail))
            for i in range(count)
        }
        x = normal(g, 2, grid[0] * grid[1], dim)
        shift = normal(g, 1, side * side, dim) if centres else torch.zeros(1, side * side, dim).double()
        head = {
            "norm.weight": 1 + 0.1 * torch.randn(dim, generator=g),
            "norm.bias": 0.1 * torch.randn(dim, generator=g),
        }
        head |= {"head.weight": torch.randn(5, dim, generator=g) * dim**-0.5, "head.bias": torch.randn(5, generator=g)}

        def forward(one: Tensor) -> list[Tensor]:
            for i in range(base):
                one = cross(layers[f"base.{i}"], one, one, heads)
            steps = [pooled(one.unflatten(0, grid), side)]
            for i in range(stgm):
                now = steps[-1]
                keys = torch.cat([now, one]) if i else one
                steps.append(cross(layers[f"stgm.{i}"], now + shift[0] if i == 1 else now, keys, heads))
            end = steps[-1]
            for i in range(tail):
                end = cross(layers[f"tail.{i}"], end, end, heads)
            normed = layer_norm(end, EPS) * head["norm.weight"].double() + head["norm.bias"].double()
            return [one, *steps, end, linear(head, "head", normed.mean(0))]

        outs = [torch.stack(part).float() for part in zip(*map(forward, x), strict=True)]
        names = ["tokens_before_stgm", *(f"s{i}" for i in range(stgm + 1)), "tokens_out", "logits"]
        tensors = {"x": x.float(), **dict(zip(names, outs, strict=True))}
        tensors |= {f"w.{name}": t for name, t in head.items()}
        tensors |= {f"w.{place}.{name}": t for place, w in layers.items() for name, t in w.items()}
        if centres:
            tensors["w.global_token"] = shift.float()
        told = {"kind": "columnar", "grid": list(grid), "samples_per_side": side, "heads": heads, "dim": dim}
        told |= {"base_layers": base, "tail_layers": tail, "layer_norm_eps": EPS}
        return tensors, told, math.inf

    return make
