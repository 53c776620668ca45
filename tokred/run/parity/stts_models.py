"""Replay of STTS end to end: inside an MViT, and inside a VideoSwin whose maps become smaller."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tokred.anchors import Anchors
from tokred.backbones.swin_layers import Stage
from tokred.backbones.videoswin import VideoSwin
from tokred.perturbed import min_max
from tokred.reduction import Reduction
from tokred.run.parity.golden import Golden
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.mvit import MViT, Stride
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.stts import SITE, Replayed, chosen_of, close, gradients, indicator_of, load, raw_scores, replayed
from tokred.tokens import Grid, Tokens

KINDS = ("time_score_predictor", "space_score_predictor")
PATCH: Stride = (2, 4, 4)
"""Strides of both official patch embeddings."""


class Sites:
    """The predictors of a file, where they act, and what is compared when they do."""

    def __init__(self, golden: Golden, ledger: Ledger, config: Settings, weights: dict[str, Tensor]) -> None:
        self.golden, self.ledger = golden, ledger
        self.prefix = ""
        self.told = golden.settings.inner("predictors")
        self.at: dict[int, list[str]] = {}
        self.reducers: dict[str, Replayed] = {}
        sigma = config.number("sigma")
        golden.settings.agree("sigma", sigma)
        for kind, name in zip(KINDS, ("tloc", "sloc"), strict=True):
            for i, place in enumerate(config.take(name, None) or []):
                self.at.setdefault(int(place), []).append(f"{kind}.{i}")
                self.reducers[f"{kind}.{i}"] = _reducer(weights, f"{kind}.{i}", sigma)
        config.without_effect("tr", "sr")
        if set(self.told._values) != set(self.reducers):
            raise Malformed(f"predictors {sorted(self.told._values)}, but the config places {sorted(self.reducers)}")
        for name in self.reducers:
            noise = golden.floats(f"train.{name}.noise", dims=3) if f"train.{name}.noise" in golden else None
            if noise is not None:
                self.reducers[name].stored = {int(name.startswith(KINDS[1])): noise}
                config.agree("ns", noise.shape[1])
                golden.settings.agree("num_samples", noise.shape[1])

    def __call__(self, place: int, x: Tensor, grid: Grid, prefix: int) -> tuple[Tensor, Grid]:
        """What the predictors before a block or stage make of its tokens (B, N, C), temporal ones first."""
        for name in self.at.get(place, []):
            x, grid = self._act(name, Tokens(x, grid, prefix, groups=grid.t), grid)
        return x, grid

    def train(self) -> None:
        """Act as in training from now on, and compare with the file's training entries."""
        self.prefix = "train."
        for reducer in self.reducers.values():
            reducer.train()

    def parameters(self) -> dict[str, nn.Parameter]:
        """All scorers' parameters by their official names."""
        return {
            f"{name}.{inner}": parameter
            for name, reducer in self.reducers.items()
            for inner, parameter in _holder(reducer, name).named_parameters()
        }

    def _act(self, name: str, tokens: Tokens, grid: Grid) -> tuple[Tensor, Grid]:
        reducer, told = self.reducers[name], self.told.inner(name)
        k, side = told.whole("k", least=1), told.whole("anchor_size", least=1)
        anchors = Anchors(grid.h, grid.w, side, side) if name.startswith(KINDS[1]) else None
        reduction: Reduction
        if anchors is None:
            reduction, after = reducer.choose_frames(tokens, k, SITE), Grid(k, grid.h, grid.w)
        else:
            reduction, after = reducer.choose_squares(tokens, anchors, SITE), Grid(grid.t, side, side)
        where = f"{self.prefix}{name}"
        scores = min_max(raw_scores(reducer, tokens, anchors))
        close(self.ledger, f"{where}.scores", scores, self.golden.floats(f"{where}.scores"))
        if reducer.training:
            indicator = self.golden.floats(f"{where}.indicator")
            close(self.ledger, f"{where}.indicator", indicator_of(reduction), indicator)
        else:
            ours = chosen_of(reduction, tokens, anchors)
            self.ledger.decision(f"{where}.indices", ours, self.golden.indices(f"{where}.indices"))
        return reduction.apply(tokens.x), after


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


def _read(golden: Golden) -> tuple[Tensor, Settings, dict[str, Tensor]]:
    clips = golden.floats("x", dims=5)
    config = golden.settings.inner("config")
    config.agree("B", clips.shape[0])
    config.agree("frames", clips.shape[2])
    return clips, config, golden.weights(clips.dtype)


def _reducer(weights: dict[str, Tensor], name: str, sigma: float) -> Replayed:
    prefix = f"{name}."
    own = {key.removeprefix(prefix): tensor for key, tensor in weights.items() if key.startswith(prefix)}
    width = own["score_network.in_conv.1.weight"].shape[0] if own else 0
    if not width:
        raise Malformed(f"there are no weights of {name}")
    time = name.startswith(KINDS[0])
    reducer = replayed((width // 2, 4) if time else (4, width), sigma)
    load(_holder(reducer, name), own)
    return reducer.eval()


def _holder(reducer: Replayed, name: str) -> nn.Module:
    return (reducer.time_score_predictor if name.startswith(KINDS[0]) else reducer.space_score_predictor)[0]


def _placed(config: Settings, places: int) -> None:
    for name in ("tloc", "sloc"):
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
