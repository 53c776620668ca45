"""Replay of STViT models: the columnar form attached to a host, the official dumbbell stage, the official Swin form."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokred.attach import attach
from tokred.driver import Action, actions_of, perform, run_blocks
from tokred.methods.stvit import STViT
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Reduction
from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.stvit import load, square, under
from tokred.run.parity.stvit_stage import DumbbellStage, block_count, merging, swin_block
from tokred.semantic import SemanticTokens
from tokred.tokens import Grid, Tokens

EPS = 1e-5
RELATIVE = 5e-5
"""Tolerance of models, relative to the largest magnitude: norms of nearly equal channels magnify rounding."""

LAYER = {"layer_scale_1": "ls1.gamma", "layer_scale_2": "ls2.gamma"}


def is_columnar(golden: Golden) -> bool:
    """Whether it holds a columnar model with its layers by role."""
    return "w.stgm.0.norm1.weight" in golden


def is_stage(golden: Golden) -> bool:
    """Whether it holds a stage of dumbbell units."""
    return "w.blocks.1.attn.kv.weight" in golden and "w.blocks.0.attn.qkv.weight" in golden


def is_swin(golden: Golden) -> bool:
    """Whether it holds a whole STViT-R with windows."""
    return "w.patch_embed.proj.0.c.weight" in golden and bool(
        golden.matching(r"w\.layers\.\d+\.blocks\.1\.attn\.kv\..*")
    )


@torch.no_grad()
def columnar(golden: Golden, ledger: Ledger) -> None:
    """Base layers and later layers as a host, the generation as its reducer."""
    settings = golden.settings
    x = golden.floats("x", 3)
    weights = golden.weights(x.dtype)
    grid = _grid(settings, x.shape[1])
    settings.agree("dim", x.shape[2])
    base, tail, stgm = (_numbered(weights, f"{name}.") for name in ("base", "tail", "stgm"))
    settings.agree("base_layers", len(base))
    settings.agree("tail_layers", len(tail))
    if not tail:
        raise Malformed("there are no layers behind the generation: a reducer acts before a block")
    heads, eps = settings.whole("heads", least=1), settings.number("layer_norm_eps", EPS)
    host = _host([*base, *tail], weights, heads, eps, grid, x)
    centres = weights.get("global_token")
    side = settings.whole("samples_per_side", least=1)
    reducer = STViT(side, at=len(base), layers=len(stgm), centres=centres is not None, weights=None)
    attached = attach(host, reducer)
    state = {f"layers.{i}.{name}": tensor for i, own in enumerate(stgm) for name, tensor in own.items()}
    if centres is not None:
        state["centres"] = centres
    generation = reducer.generation[0]
    assert isinstance(generation, SemanticTokens)
    load(generation, state, eps)

    entering: list[Tensor] = []

    def look(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
        entering.append(tokens.x)
        return perform(action, tokens, probe, site)

    tokens = Tokens(x, grid, groups=grid.t, class_token=False)
    adapter = attached.adapter
    actions = actions_of((reducer,), attached.geometry)
    tokens, _ = run_blocks(adapter, host, tokens, actions, proportional=False, perform=look)
    ledger.value("tokens_before_stgm", entering[0], golden.floats("tokens_before_stgm", 3), relative=RELATIVE)
    for i, made in enumerate(generation.steps(entering[0].unflatten(1, tuple(grid)))):
        if f"s{i}" in golden:
            ledger.value(f"s{i}", made, golden.floats(f"s{i}", 3), relative=RELATIVE)
    ledger.value("tokens_out", tokens.x, golden.floats("tokens_out", 3), relative=RELATIVE)
    features = adapter.features(host, tokens, "mean")
    ledger.value(
        "logits", adapter.classify(host, features, tokens, "mean"), golden.floats("logits", 2), relative=RELATIVE
    )


@torch.no_grad()
def stage(golden: Golden, ledger: Ledger) -> None:
    """A stage of dumbbell units, layer by layer."""
    settings = golden.settings
    config = settings.inner("config")
    x = golden.floats("x", 3)
    weights = golden.weights(x.dtype)
    side = square(x.shape[1])
    config.agree_pair("input_resolution", (side, side))
    config.agree("embed_dim", x.shape[2])
    blocks = {name: tensor for name, tensor in weights.items() if not name.startswith("downsample.")}
    outputs = list(DumbbellStage(blocks, config, ledger).steps(x))
    counts = [y.shape[1] for y in outputs]
    ledger.counts("tokens per block", counts, settings.take("tokens_per_block", counts))
    _compare_blocks(golden, ledger, "block", outputs)
    out = outputs[-1]
    merges = any(name.startswith("downsample.") for name in weights)
    settings.agree("patch_merging_after", merges)
    if merges:
        out, _ = merging(under(weights, "downsample."))(out, Grid(1, side, side))
    ledger.value("out", out, golden.floats("out", 3), relative=RELATIVE)
    config.finish()


@torch.no_grad()
def swin(golden: Golden, ledger: Ledger) -> None:
    """The whole official model with windows."""
    settings = golden.settings
    config = settings.inner("config")
    pixels = golden.tensor("x")
    if pixels.ndim != 4:
        raise Malformed(f"x has shape {tuple(pixels.shape)}: images (B, 3, H, W) were expected")
    if pixels.dtype == torch.int8:
        if "/32" not in str(settings.take("input", "x.float()/32")).replace(" ", ""):
            raise Malformed(f"input = {settings.take('input')}: x.float()/32 was expected")
        pixels = pixels.float() / 32
    weights = golden.weights(pixels.dtype)
    config.agree_pair("img_size", (pixels.shape[2], pixels.shape[3]))
    maps = _stem(weights, pixels)
    config.agree("embed_dim", maps.shape[1])
    x, side = maps.flatten(2).transpose(1, 2), maps.shape[2]
    if maps.shape[3] != side:
        raise Malformed(f"a map of {side} x {maps.shape[3]} is not square")
    depths, heads = config.items("depths"), config.items("num_heads")
    window = config.whole("window_size", least=1)
    for i, depth in enumerate(depths):
        own = under(weights, f"layers.{i}.")
        if block_count(own) != depth:
            raise Malformed(f"config.depths = {depths}, but stage {i} has {block_count(own)} blocks")
        blocks = {name: tensor for name, tensor in own.items() if not name.startswith("downsample.")}
        if "blocks.1.attn.kv.weight" in own:
            inner = _stage_settings(golden, config, i, heads[i], window, side)
            outputs = list(DumbbellStage(blocks, inner, ledger).steps(x))
            _compare_blocks(golden, ledger, f"stage{i}.block", outputs)
            told = settings.take(f"tokens_stage{i}", {})
            for name, count in told.items():
                ledger.counts(name, outputs[int(name.rpartition(".")[2])].shape[1], count)
            x = outputs[-1]
        else:
            for j in range(depth):
                inner = Settings({"num_heads": heads[i]}, f"stage {i}")
                where = f"layers.{i}.blocks.{j}.attn."
                block = swin_block(under(blocks, f"blocks.{j}."), inner, window, j % 2 == 1, ledger, where)
                x = block(x, Grid(1, side, side))
        if under(own, "downsample."):
            x, grid = merging(under(own, "downsample."))(x, Grid(1, side, side))
            side = grid.h
    x = F.layer_norm(x, x.shape[2:], weights["norm.weight"], weights["norm.bias"], EPS).mean(dim=1)
    config.agree("num_classes", weights["head.weight"].shape[0])
    ledger.value(
        "logits",
        F.linear(x, weights["head.weight"], weights.get("head.bias")),
        golden.floats("logits", 2),
        relative=RELATIVE,
    )
    config.without_effect(
        "drop_path_rate", "use_global", "shortcut", "sample_window_size", "relative_pos", "use_conv_pos"
    )
    config.finish()


def _stage_settings(golden: Golden, config: Settings, i: int, heads: int, window: int, side: int) -> Settings:
    """What the stage of units needs to know of the whole model."""
    given: dict[str, object] = {"num_heads": heads, "window_size": window}
    for name in ("use_global", "shortcut", "relative_pos", "use_conv_pos", "sample_window_size"):
        if name in config:
            given[name] = config.take(name)
    if "sample_window_size" not in given and f"stage{i}.block.1" in golden:
        given["sample_window_size"] = square(golden.tensor(f"stage{i}.block.1").shape[1]) // (side // window)
    return Settings(given, f"stage {i}")


def _compare_blocks(golden: Golden, ledger: Ledger, name: str, outputs: list[Tensor]) -> None:
    for i in golden.numbered(rf"{re.escape(name)}\.(\d+)"):
        if i >= len(outputs):
            raise Malformed(f"there is {name}.{i}, but the stage has {len(outputs)} layers")
        ledger.value(f"{name}.{i}", outputs[i], golden.floats(f"{name}.{i}", 3), relative=RELATIVE)


def _stem(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """Convolutions of stride 2, each with batch norm and Hardswish."""
    stem = under(weights, "patch_embed.proj.")
    for i in sorted({int(name.partition(".")[0]) for name in stem}):
        own = under(stem, f"{i}.")
        x = F.conv2d(x, own["c.weight"], own.get("c.bias"), stride=2, padding=own["c.weight"].shape[2] // 2)
        mean, variance, scale, shift = (own[f"bn.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
        x = F.hardswish(F.batch_norm(x, mean, variance, scale, shift, training=False, eps=EPS))
    return x


def _host(
    layers: list[dict[str, Tensor]], weights: dict[str, Tensor], heads: int, eps: float, grid: Grid, x: Tensor
) -> nn.Module:
    """timm's ViT with the layers as its blocks; its embedding is not used."""
    from timm.models.vision_transformer import VisionTransformer

    dim, hidden = x.shape[2], layers[0]["mlp.fc1.weight"].shape[0]
    model: Any = VisionTransformer(
        img_size=grid[1:],
        patch_size=1,
        in_chans=1,
        num_classes=weights["head.weight"].shape[0],
        global_pool="avg",
        embed_dim=dim,
        depth=len(layers),
        num_heads=heads,
        mlp_ratio=(hidden + 0.5) / dim,
        qkv_bias="attn.q.bias" in layers[0],
        init_values=1.0,
        class_token=False,
        fc_norm=False,
        norm_layer=partial(nn.LayerNorm, eps=eps),
    ).to(x.dtype)
    for i, own in enumerate(layers):
        fused = {LAYER.get(name, name): t for name, t in own.items() if not name.startswith(("attn.q.", "attn.kv."))}
        for kind in ("weight", "bias"):
            if f"attn.q.{kind}" in own:
                fused[f"attn.qkv.{kind}"] = torch.cat([own[f"attn.q.{kind}"], own[f"attn.kv.{kind}"]])
        load(model.blocks[i], fused)
    load(model.norm, under(weights, "norm."))
    load(model.head, under(weights, "head."))
    return model.eval()


def _grid(settings: Settings, patches: int) -> Grid:
    given = settings.take("grid")
    rows, columns = given if isinstance(given, list) and len(given) == 2 else (given, given)
    if not isinstance(rows, int) or not isinstance(columns, int) or rows * columns != patches:
        raise Malformed(f"grid = {given}, but there are {patches} image tokens")
    return Grid(1, rows, columns)


def _numbered(weights: dict[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    """The weights of layers 0, 1, 2, ... below a name."""
    own = under(weights, prefix)
    count = len({name.partition(".")[0] for name in own})
    found = [under(own, f"{i}.") for i in range(count)]
    if not all(found):
        raise Malformed(f"the weights of {prefix}* are not numbered 0..{count - 1}")
    return found
