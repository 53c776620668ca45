"""Replay of STViT's layers: pooling, both generating steps, semantic layers, recovery."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from tokred.backbones.window_layout import relative_index
from tokred.run.parity.golden import Golden, one_line
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.semantic import CrossLayer, LayerSize, pool_cells
from tokred.semantic_windows import WindowLayer, biased_layer, in_groups

INDEX = "relative_position_index"


def is_pooling(golden: Golden) -> bool:
    """Whether it holds pooled windows."""
    return _called(golden, r"intra-window spatial initialisation") and "samples_per_side" in golden.settings


def is_layer(golden: Golden) -> bool:
    """Whether it holds one layer in one of its roles."""
    return "w.attn.kv.weight" in golden and "x" in golden and "out" in golden


@torch.no_grad()
def pooling(golden: Golden, ledger: Ledger) -> None:
    """Windows of image tokens to the tokens that start the generation."""
    settings = golden.settings
    maps = golden.floats("x", 4)  # (windows, C, rows, columns)
    settings.agree_pair("window", (maps.shape[2], maps.shape[3]))
    pooled = pool_cells(maps.permute(0, 2, 3, 1), settings.whole("samples_per_side", least=1))
    ledger.bits("out", pooled, golden.floats("out", 3))


@torch.no_grad()
def layer(golden: Golden, ledger: Ledger) -> None:
    """One layer: the first generating step inside windows, or a cross layer."""
    config = golden.settings.inner("config")
    x = golden.floats("x", 3)
    weights = golden.weights(x.dtype)
    if "sample_window_size" in config:
        _window_layer(golden, ledger, config, weights, x)
    else:
        _cross_layer(golden, ledger, config, weights, x)
    config.finish()


def _cross_layer(golden: Golden, ledger: Ledger, config: Settings, weights: dict[str, Tensor], x: Tensor) -> None:
    size = size_of(weights, config)
    relative, local = config.flag("relative_pos", False), config.flag("local", False)
    side = config.take("window_size", None)
    if (relative or local) and (isinstance(side, bool) or not isinstance(side, int) or side < 1):
        raise Malformed(f"config.window_size = {side} is not the side of a group")
    check_index(ledger, weights, "attn.", side)
    bias = "attn.q.bias" in weights
    module = load(biased_layer(size, side, bias=bias) if relative else CrossLayer(size, bias=bias), weights)
    shift = golden.floats("global", 3) if "global" in golden else torch.zeros(())
    both = golden.settings.flag("concat_x_before_y", False)
    if "y" in golden:
        if local:
            raise Malformed("config.local: groups look at themselves, but the file gives other tokens y")
        y = golden.floats("y", 3)
        out = module(x + shift, torch.cat([x, y], dim=1) if both else y)
    elif both:
        raise Malformed("concat_x_before_y: the file gives no y")
    else:
        out = in_groups(module, x + shift, square(x.shape[1]), side) if local else module(x + shift)
    ledger.value("out", out, golden.floats("out", 3))


def _window_layer(golden: Golden, ledger: Ledger, config: Settings, weights: dict[str, Tensor], x: Tensor) -> None:
    module = window_layer(config, weights, config.flag("shortcut", False))
    columns = square(x.shape[1])
    maps = x.unflatten(1, (columns, columns))
    if columns % module.window:
        raise Malformed(f"windows of {module.window} do not divide a map of {columns} x {columns}")
    given = golden.floats("y", 3) if "y" in golden else None
    start = module.norm1(module.initial(maps, given))
    if "query_normed" in golden:
        ledger.value("query_normed", start.flatten(0, 1), golden.floats("query_normed", 3))
    if "keys_normed" in golden:
        keys = module.keys(module.norm1(maps), start)
        ledger.value("keys_normed", keys.flatten(0, 1), golden.floats("keys_normed", 3))
    ledger.value("out", module(maps, given), golden.floats("out", 3))


def window_layer(config: Settings, weights: dict[str, Tensor], shortcut: bool) -> WindowLayer:
    """The first generating step inside windows, with its weights."""
    position = "conv_pos.proj.0.weight" in weights
    config.agree("use_conv_pos", position)
    module = WindowLayer(
        size_of(weights, config),
        config.whole("sample_window_size", least=1),
        config.whole("window_size", least=1),
        shortcut=shortcut,
        position=position,
        bias="attn.q.bias" in weights,
    )
    load(module, weights)
    return module


def size_of(weights: dict[str, Tensor], config: Settings) -> LayerSize:
    """Sizes of a layer from its weights; the heads from the settings."""
    dim, hidden = weights["norm1.weight"].shape[0], weights["mlp.fc1.weight"].shape[0]
    config.agree("dim", dim)
    config.agree("qkv_bias", "attn.q.bias" in weights)
    ratio = config.number("mlp_ratio", hidden / dim)
    if int(dim * ratio) != hidden:
        raise Malformed(f"config.mlp_ratio = {ratio} at width {dim}, but the hidden width is {hidden}")
    heads = config.whole("num_heads", least=1)
    inner = weights["attn.q.weight"].shape[0]
    if inner % heads:
        raise Malformed(f"config.num_heads = {heads} does not divide the width {inner}")
    return LayerSize(dim, heads, inner // heads, hidden)


def check_index(ledger: Ledger, weights: dict[str, Tensor], where: str, side: int) -> None:
    """Compare the offsets that a file gives with ours, and take them out of the weights."""
    theirs = weights.pop(f"{where}{INDEX}", None)
    if theirs is not None:
        ledger.decision(f"{where}{INDEX}", relative_index((1, side, side)), theirs)


def load(module: nn.Module, weights: dict[str, Tensor], eps: float | None = None) -> nn.Module:
    """The module with all of the weights, in eval mode."""
    for part in module.modules():
        if isinstance(part, nn.LayerNorm) and eps is not None:
            part.eps = eps
    module.to(next(iter(weights.values())).dtype)
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise Malformed(f"the weights do not fit: {one_line(error)}") from error
    return module.eval()


def under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights below a name."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def square(count: int) -> int:
    """Side of a square of so many tokens."""
    side = round(count**0.5)
    if side * side != count:
        raise Malformed(f"{count} tokens are no square map")
    return side


def _called(golden: Golden, pattern: str) -> bool:
    return re.search(pattern, golden.kind) is not None
