"""Replay of the video backbone's vectors: VideoMAE ViT end to end, and its position table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

import tokred
from tokred.backbones.positions import sincos_flat
from tokred.backbones.videomae import Block, VideoViT
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import crop_clips, video_vit
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed

TABLE_TOLERANCE = 1e-6
"""A position table is float64 rounded once: 1e-4 is what a float32 evaluation is off by."""


def positions(golden: Golden, ledger: Ledger) -> None:
    """The fixed sin-cos table over n positions of width d."""
    table = golden.floats("table", dims=2)
    n, dim = table.shape
    golden.settings.agree("n", n)
    golden.settings.agree("d", dim)
    ledger.value("table", sincos_flat(n, dim)[0].to(table), table, absolute=TABLE_TOLERANCE)


def table_of(golden: Golden, model: VideoViT, ledger: Ledger) -> None:
    """The fixed position table that a file may hold beside the weights."""
    if "pos_embed_table" not in golden:
        return
    if isinstance(model.pos_embed, torch.nn.Parameter):
        raise Malformed("pos_embed_table beside learned positions")
    table = golden.floats("pos_embed_table", dims=3)
    ledger.value("pos_embed_table", model.pos_embed.to(table), table, absolute=TABLE_TOLERANCE)


@torch.no_grad()
def end_to_end(golden: Golden, ledger: Ledger) -> None:
    """Tokens, attention branches, block outputs, features and logits of a VideoMAE ViT, bare and attached."""
    clips = golden.floats("x", dims=5)
    weights = golden.weights(clips.dtype)
    clips = crop_clips(weights, clips, ledger)
    config = golden.settings.inner("config")
    model = video_vit(weights, clips, config)
    config.finish()
    table_of(golden, model, ledger)

    x = model.embed(clips)
    if "embed" in golden:
        ledger.value("embed", x, golden.floats("embed"))
    depth = len(model.blocks)
    for i, block in enumerate(cast(Sequence[Block], model.blocks)):
        if f"block.{i}.attn_out" in golden:
            branch = block.attn(block.norm1(x))
            ledger.value(f"block.{i}.attn_out", branch, golden.floats(f"block.{i}.attn_out"))
        x = block(x)
        if f"block.{i}" in golden:
            ledger.value(f"block.{i}", x, golden.floats(f"block.{i}"))
    outside = [i for i in golden.numbered(r"block\.(\d+)(?:\..*)?") if i >= depth]
    if outside:
        raise Malformed(f"there is output of block {outside[0]}, but the model has {depth} blocks")
    if "features" in golden:
        ledger.value("features", model.forward_features(clips), golden.floats("features"))
    logits = golden.floats("logits")
    ledger.value("logits", model(clips), logits)
    ledger.value("attached logits", tokred.attach(model, tokred.build("none"))(clips), logits)
    if "logits_float64" in golden:
        ledger.logits64("logits_float64", model(clips), golden.floats("logits_float64"), absolute=2e-5)
