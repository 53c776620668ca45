"""Replay of STTS end to end: inside an MViT, and inside a VideoSwin whose maps become smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tokred.attach import attach
from tokred.backbones.swin_layers import Stage
from tokred.backbones.videoswin import VideoSwin
from tokred.methods.stts import STTS
from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.mvit import MViT, Stride
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.stts import close, gradients, load
from tokred.run.parity.stts_sites import KINDS, PLACES, Sites

PATCH: Stride = (2, 4, 4)
"""Strides of both official patch embeddings."""


def mvit(golden: Golden, ledger: Ledger) -> None:
    """MViT with a class token: eval probabilities, training logits and gradients."""
    clips, config, weights = _read(golden)
    strides = _strides(config)
    depth = config.whole("depth", least=1)
    _placed(config, depth)
    kv_stride = _triple(config.take("kv"))
    q = {place: stride for place, stride in strides.items() if place < depth}
    kv: dict[int, Stride] = {}
    for i in range(depth):
        if i in q:
            kv_stride = cast(Stride, tuple(max(a // b, 1) for a, b in zip(kv_stride, q[i], strict=True)))
        kv[i] = kv_stride
    host_weights = {name: tensor for name, tensor in weights.items() if not name.startswith(KINDS)}
    model = MViT(host_weights, PATCH, q, kv)
    load(model, host_weights)
    config.agree("dim", host_weights["cls_token"].shape[2])
    config.agree("crop", clips.shape[3])
    config.agree("classes", host_weights["head.projection.bias"].shape[0])
    config.without_effect("heads", "mul", "mlp")
    sites = Sites(golden, ledger, config, weights)
    config.finish()

    def forward() -> Tensor:
        x, grid = model.embed(clips)
        for i, block in enumerate(model.blocks):
            x, grid = block(*sites(i, x, grid, 1))
        return model.classify(x)

    _compare(golden, ledger, sites, model, forward, lambda logits: logits.softmax(dim=-1))


def swin(golden: Golden, ledger: Ledger) -> None:
    """VideoSwin: the feature map after the last norm in eval and in training, and gradients."""
    clips, config, weights = _read(golden)
    index = "relative_position_index"
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith(KINDS)}
    hidden, width = kept["layers.0.blocks.0.mlp.fc1.weight"].shape
    model = VideoSwin(
        img_size=cast(tuple[int, int], tuple(clips.shape[3:])),
        patch_size=PATCH,
        frames=clips.shape[2],
        dim=config.whole("dim", least=1),
        depths=config.items("depths"),
        num_heads=config.items("heads"),
        window=config.items("win"),
        mlp_ratio=hidden / width,
        num_classes=0,
        qkv_bias="layers.0.blocks.0.attn.qkv.bias" in kept,
        patch_norm="patch_embed.norm.weight" in kept,
    )
    for name, tensor in kept.items():
        if name.endswith(index):
            ledger.decision(name, model.get_buffer(name).reshape(tensor.shape), tensor)
    load(model, {name: tensor for name, tensor in kept.items() if not name.endswith(index)})
    config.agree("img", clips.shape[3])
    _placed(config, len(model.layers))
    sites = Sites(golden, ledger, config, weights)
    product = _product(config, model)
    config.finish()

    def forward() -> Tensor:
        x, grid = model.embed(clips)
        for i, stage in enumerate(cast(list[Stage], list(model.layers))):
            x, grid = sites(i, x, grid, 0)
            for block in stage.blocks:
                x = block(x, grid)
            if stage.downsample is not None:
                x, grid = stage.downsample(x, grid)
        return cast(Tensor, model.norm(x)).transpose(1, 2).unflatten(2, grid)

    _compare(golden, ledger, sites, model, forward, lambda out: out)
    if product is None:
        ledger.notes.append("predictors of no single temporal, then spatial stage: not compared through attach")
        return
    fast = attach(model, product)
    product.load_official(weights)
    with torch.no_grad():
        left = fast.eval().run(clips).tokens
        close(
            ledger,
            "attached out",
            cast(Tensor, model.norm(left.x)).transpose(1, 2).unflatten(2, left.grid),
            golden.floats("out"),
        )


def _compare(
    golden: Golden,
    ledger: Ledger,
    sites: Sites,
    model: nn.Module,
    forward: Callable[[], Tensor],
    finish: Callable[[Tensor], Tensor],
) -> None:
    model.eval()
    with torch.no_grad():
        close(ledger, "out", finish(forward()), golden.floats("out"))
    if "train.out" not in golden:
        return
    sites.train()
    out = forward()
    close(ledger, "train.out", out, golden.floats("train.out"))
    out.backward(golden.floats("train.grad_out"))
    gradients(golden, ledger, {**dict(model.named_parameters()), **sites.parameters()})


def _product(config: Settings, model: VideoSwin) -> STTS | None:
    """The method of the package with a file's settings, where there is one predictor of a kind, temporal first."""
    firsts = [0]
    for layer in cast(list[Stage], list(model.layers)):
        firsts.append(firsts[-1] + len(layer.blocks))
    given = [(config.take(place, None) or [], config.take(ratio, None) or []) for place, ratio in PLACES]
    if any(len(places) > 1 or len(ratios) < len(places) for places, ratios in given):
        return None
    (time, time_at), (space, space_at) = (
        (float(ratios[0]), firsts[places[0]]) if places else (1.0, None) for places, ratios in given
    )
    if space_at is not None and time_at is not None and space_at < time_at:
        return None
    return STTS(time=time, space=space, time_at=time_at or 0, space_at=space_at, weights=None)


def _read(golden: Golden) -> tuple[Tensor, Settings, dict[str, Tensor]]:
    clips = golden.floats("x", dims=5)
    config = golden.settings.inner("config")
    config.agree("B", clips.shape[0])
    config.agree("frames", clips.shape[2])
    return clips, config, golden.weights(clips.dtype)


def _placed(config: Settings, places: int) -> None:
    for name, _ in PLACES:
        given = config.take(name, None) or []
        if not isinstance(given, list) or any(not isinstance(p, int) or not 0 <= p < places for p in given):
            raise Malformed(f"config.{name} = {given}: places in 0..{places - 1} were expected")


def _strides(config: Settings) -> dict[int, Stride]:
    """Block -> stride of its queries, from [block, t, h, w] entries."""
    return {int(entry[0]): _triple(entry[1:]) for entry in config.items("qs")}


def _triple(value: object) -> Stride:
    if not isinstance(value, list) or len(value) != 3 or any(not isinstance(v, int) or v < 1 for v in value):
        raise Malformed(f"{value} are not three strides")
    return (value[0], value[1], value[2])
