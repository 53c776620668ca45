"""Replay of VideoSwin's vectors: end to end, its relative index and shift mask, and inflation of 2-D weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from tokred.backbones.convert import CheckpointError
from tokred.backbones.convert.swin import INDEX, TABLE, inflate, swin_name
from tokred.backbones.swin_layers import Stage, SwinBlock
from tokred.backbones.videoswin import VideoSwin
from tokred.backbones.window_layout import Window, WindowLayout, cut, relative_index
from tokred.run.parity.golden import Golden, one_line
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.tokens import Grid

_NO_EFFECT = ("drop_rate", "attn_drop_rate", "drop_path_rate", "use_checkpoint", "frozen_stages", "dropout_ratio")
"""Constructor arguments of the reference that do nothing in eval mode on given weights."""


def three(settings: Settings, name: str, least: int = 1) -> Window:
    """A setting of three whole numbers (t, h, w)."""
    given = settings.items(name)
    if len(given) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < least for n in given):
        raise Malformed(f"{settings.where}.{name} = {given} is not three whole numbers of at least {least}")
    return given[0], given[1], given[2]


def video_swin(weights: dict[str, Tensor], clips: Tensor, config: Settings) -> VideoSwin:
    """VideoSwin with the weights of the official code.

    Args:
        weights: official state dict, with or without the prefix ``backbone.`` and the constant indices.
        clips: (B, C, T, H, W); config: arguments of the official constructor.
    Raises:
        Malformed: weights and config contradict each other, or hold what is not understood.
    """
    state = {swin_name(name.removeprefix("backbone.")): tensor for name, tensor in weights.items()}
    dim, in_chans, *patch = _shape(state, "patch_embed.proj.weight", 5)
    depths = _depths(state)
    heads = [_shape(state, f"layers.{i}.blocks.0.attn.{TABLE}", 2)[1] for i in range(len(depths))]
    hidden = _shape(state, "layers.0.blocks.0.mlp.fc1.weight", 2)[0]
    window = three(config, "window_size")
    for name, value in (("embed_dim", dim), ("in_chans", in_chans), ("depths", depths), ("num_heads", heads)):
        config.agree(name, value)
    config.agree("patch_size", patch)
    config.agree("patch_norm", "patch_embed.norm.weight" in state)
    config.agree("qkv_bias", "layers.0.blocks.0.attn.qkv.bias" in state)
    ratio = config.number("mlp_ratio", hidden / dim)
    if int(dim * ratio) != hidden:
        raise Malformed(f"config.mlp_ratio = {ratio} at width {dim}, but the hidden width is {hidden}")
    classes = _shape(state, "head.weight", 2)[0] if "head.weight" in state else 0
    config.agree("num_classes", classes)
    config.without_effect(*_NO_EFFECT)
    model = VideoSwin(
        img_size=(clips.shape[3], clips.shape[4]),
        patch_size=patch,
        frames=clips.shape[2],
        in_chans=in_chans,
        dim=dim,
        depths=depths,
        num_heads=heads,
        window=window,
        mlp_ratio=ratio,
        num_classes=classes,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in state,
        patch_norm="patch_embed.norm.weight" in state,
    )
    scale, eps = config.take("qk_scale", None), config.take("norm_eps", None)
    for module in model.modules():
        if scale is not None and hasattr(module, "relative_position_index"):
            module.scale = float(scale)  # type: ignore[assignment]
        if eps is not None and isinstance(module, torch.nn.LayerNorm):
            module.eps = float(eps)
    return _loaded(model, state, clips.dtype, relative_index(window))


def _loaded(model: VideoSwin, state: dict[str, Tensor], dtype: torch.dtype, index: Tensor) -> VideoSwin:
    for name in [name for name in state if name.endswith(INDEX)]:
        if not torch.equal(state.pop(name).reshape(index.shape).long(), index):
            raise Malformed(f"{name} is not the index of the window")
    model.to(dtype)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise Malformed(f"the weights do not fit: {one_line(error)}") from error
    return model.eval()


@torch.no_grad()
def end_to_end(golden: Golden, ledger: Ledger) -> None:
    """Embedding, block outputs, merged maps, features and logits of a VideoSwin."""
    clips = golden.floats("x", dims=5)
    config = golden.settings.inner("config")
    model = video_swin(golden.weights(clips.dtype), clips, config)
    config.finish()

    def compare(name: str, x: Tensor, grid: Grid) -> None:
        if name in golden:
            ledger.value(name, x.unflatten(1, tuple(grid)), golden.floats(name, dims=5))

    x, grid = model.embed(clips)
    compare("patch_embed", x, grid)
    for i, stage in enumerate(cast(Sequence[Stage], model.layers)):
        for j, block in enumerate(cast(Sequence[SwinBlock], stage.blocks)):
            x = block(x, grid)
            compare(f"stage.{i}.block.{j}", x, grid)
        if stage.downsample is not None:
            x, grid = stage.downsample(x, grid)
            compare(f"stage.{i}.merged", x, grid)
    compare("features", model.norm(x), grid)
    if "logits" in golden:
        ledger.value("logits", model(clips), golden.floats("logits", dims=2))
    if "logits_float64" in golden:
        ledger.logits64("logits_float64", model(clips), golden.floats("logits_float64"), absolute=2e-5)


def index_and_mask(golden: Golden, ledger: Ledger) -> None:
    """Relative position index of a window, and the mask of shifted windows, windows in raster order."""
    window = three(golden.settings, "window")
    if INDEX in golden:
        ours, theirs = relative_index(window), golden.indices(INDEX)
        ledger.decision(INDEX, ours if theirs.ndim == 2 else ours.flatten(), theirs)
    if "mask" in golden:
        padded, shift = three(golden.settings, "padded_size"), three(golden.settings, "shift", least=0)
        if any(length % size or roll >= size for length, size, roll in zip(padded, window, shift, strict=True)):
            raise Malformed(f"window {window} with shift {shift} does not cut {padded} into whole windows")
        layout = cut(Grid(*padded), window, shift)
        ledger.decision("mask", raster_masks(layout).long(), golden.indices("mask", dims=3))


def raster_masks(layout: WindowLayout) -> Tensor:
    """Blocked pairs of every window in raster order, (windows, V, V) bool; the map holds whole windows."""
    _, h, w = layout.grid
    first = layout.index.view(-1, layout.volume)[:, 0]  # where the first slot of each window lies on the map
    places = (first // (h * w), first // w % h, first % w)
    rows = [
        (place - roll) % length // size
        for place, roll, length, size in zip(places, layout.shift, layout.grid, layout.window, strict=True)
    ]
    number = (rows[0] * (h // layout.window[1]) + rows[1]) * (w // layout.window[2]) + rows[2]
    sizes = torch.tensor([end - start for start, end in layout.ranges])
    return layout.masks.repeat_interleave(sizes, dim=0)[number.argsort()]


def inflation(golden: Golden, ledger: Ledger) -> None:
    """2-D Swin weights under ``in.`` as 3-D ones under ``out.``."""
    window, patch = three(golden.settings, "window3d"), three(golden.settings, "patch")
    given = {name[3:]: golden.tensor(name) for name in golden.matching(r"in\..*")}
    wanted = {name[4:]: golden.tensor(name) for name in golden.matching(r"out\..*")}
    if not given or not wanted:
        raise Malformed("there are no weights under in. and out.")
    depths = _depths(given)
    heads = golden.settings.items("heads", None) if "heads" in golden.settings else None
    golden.settings.agree("depths", depths)
    golden.settings.agree("embed_dim", _shape(given, "patch_embed.proj.weight", 4)[0])
    flat = golden.settings.take("window2d", None)
    rows = _shape(given, f"layers.0.blocks.0.attn.{TABLE}", 2)[0]
    if flat is not None and rows != (2 * flat - 1) ** 2:
        raise Malformed(f"window2d = {flat}, but the tables have {rows} rows")
    try:
        ours = inflate(given, window, patch[0], heads)
    except CheckpointError as error:
        raise Malformed(one_line(error)) from error
    for name in [name for name in wanted if name.endswith(INDEX)]:
        ours[name] = relative_index(window)
    ledger.counts("names", sorted(ours), sorted(wanted))
    for name in sorted(set(ours) & set(wanted)):
        ledger.value(name, ours[name], wanted[name])


def _depths(state: dict[str, Tensor]) -> list[int]:
    found = {(int(m[1]), int(m[2])) for name in state if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))}
    stages = max((i for i, _ in found), default=-1) + 1
    depths = [sum(i == stage for i, _ in found) for stage in range(stages)]
    if not stages or found != {(i, j) for i, depth in enumerate(depths) for j in range(depth)} or not math.prod(depths):
        raise Malformed(f"the weights name {len(found)} blocks in {stages} stages, not 0, 1, 2, ... without a gap")
    return depths


def _shape(state: dict[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    if name not in state:
        raise Malformed(f"the weights have no {name}")
    shape = tuple(state[name].shape)
    if len(shape) != dims or 0 in shape:
        raise Malformed(f"{name} has shape {shape}: {dims} dimensions were expected")
    return shape
