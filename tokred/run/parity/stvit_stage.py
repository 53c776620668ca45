"""The official STViT-R stage: dumbbell units of six layers, put together from this package's layers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from tokred.backbones.swin_layers import PatchMerging, SwinBlock
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.run.parity.stvit import INDEX, check_index, load, size_of, square, under, window_layer
from tokred.semantic import CrossLayer
from tokred.semantic_windows import biased_layer, in_groups
from tokred.tokens import Grid

UNIT = 6
"""Full layer, two generating layers, local and full semantic layer, recovery."""


class DumbbellStage(nn.Module):
    """A stage of units, from its official weights.

    Args:
        weights: those of the stage (``blocks.*``, ``semantic_token2``).
        config: sizes; the settings of the stage are read from it.
    """

    def __init__(self, weights: dict[str, Tensor], config: Settings, ledger: Ledger) -> None:
        super().__init__()
        depth = block_count(weights)
        config.agree("depth", depth)
        if depth % UNIT:
            raise Malformed(f"{depth} layers are no units of {UNIT}")
        self.window = config.whole("window_size", least=1)
        self.side = config.whole("sample_window_size", 3, least=1)
        shortcut = config.flag("shortcut", False)
        self.centres = weights.get("semantic_token2")
        config.agree("use_global", self.centres is not None)
        relative = any(f"blocks.{i}.attn.relative_position_bias_table" in weights for i in range(depth) if i % UNIT)
        config.agree("relative_pos", relative)
        self.layers = nn.ModuleList()
        for i in range(depth):
            own = under(weights, f"blocks.{i}.")
            role = i % UNIT
            if role == 0:
                layer: nn.Module = swin_block(own, config, self.window, False, ledger, f"blocks.{i}.attn.")
            elif role == 1:
                layer = window_layer(config, own, shortcut)
            else:
                layer = _cross_layer(own, config, ledger, f"blocks.{i}.attn.")
            self.layers.append(layer)

    def steps(self, x: Tensor) -> Iterator[Tensor]:
        """Tokens after every layer, from image tokens (B, P, C) of a square map."""
        length = square(x.shape[1])
        if length % self.window:
            raise Malformed(f"windows of {self.window} do not divide a map of {length} x {length}")
        columns = length // self.window * self.side
        image = semantic = x
        for i, layer in enumerate(self.layers):
            role = i % UNIT
            if role == 0:
                image = cast(SwinBlock, layer)(image, Grid(1, length, length))
            elif role == 1:
                semantic = layer(image.unflatten(1, (length, length)))
            elif role == 2:
                start = semantic if i > UNIT or self.centres is None else semantic + self.centres
                semantic = layer(start, torch.cat([semantic, image], dim=1))
            elif role == 3:
                semantic = in_groups(layer, semantic, columns, self.side)
            elif role == 4:
                semantic = layer(semantic)
            else:
                image = layer(image, semantic)
            yield image if role in (0, UNIT - 1) else semantic


def swin_block(
    weights: dict[str, Tensor], config: Settings, window: int, shifted: bool, ledger: Ledger, where: str
) -> SwinBlock:
    """A block of window attention with its weights.

    Args:
        where: name of its attention, for what differs.
    """
    dim, hidden = weights["norm1.weight"].shape[0], weights["mlp.fc1.weight"].shape[0]
    heads = weights["attn.relative_position_bias_table"].shape[1]
    config.agree("num_heads", heads)
    weights = {f"{where}{name.removeprefix('attn.')}" if INDEX in name else name: t for name, t in weights.items()}
    check_index(ledger, weights, where, window)
    bias = "attn.qkv.bias" in weights
    # Half a unit, so that rounding down gives the hidden width back.
    block = SwinBlock(dim, heads, (1, window, window), shifted, (hidden + 0.5) / dim, bias, 0.0)
    load(block, weights)
    return block


def merging(weights: dict[str, Tensor]) -> PatchMerging:
    """Patch merging with its weights."""
    module = PatchMerging(weights["norm.weight"].shape[0] // 4)
    load(module, weights)
    return module


def block_count(weights: dict[str, Tensor]) -> int:
    """Number of blocks that the weights name, 0, 1, 2, ... without a gap."""
    blocks = {int(m.group(1)) for name in weights if (m := re.match(r"blocks\.(\d+)\.", name))}
    if not blocks or blocks != set(range(len(blocks))):
        raise Malformed(f"the weights name {len(blocks)} blocks, not 0, 1, 2, ... without a gap")
    return len(blocks)


def _cross_layer(weights: dict[str, Tensor], config: Settings, ledger: Ledger, where: str) -> CrossLayer:
    size, bias = size_of(weights, config), "attn.q.bias" in weights
    table = weights.get("attn.relative_position_bias_table")
    if table is None:
        module = CrossLayer(size, bias=bias)
    else:
        side = (square(table.shape[0]) + 1) // 2
        weights = {f"{where}{INDEX}" if name == f"attn.{INDEX}" else name: t for name, t in weights.items()}
        check_index(ledger, weights, where, side)
        module = biased_layer(size, side, bias=bias)
    load(module, weights)
    return module
