"""Replay of whole Eventful Transformers: image ViT, ViTDet with windows and relative positions, frame after frame."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tokred.backbones.parts import BlockParts, Rows
from tokred.methods.ats import official_scores, stabilised
from tokred.run.parity.eventful import OUT, policy_of
from tokred.run.parity.eventful_windows import RelativePosition, Windows, resized
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import NORM_EPS
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings
from tokred.streaming import Chosen, Fraction, GatedBlock, GateSettings, Policy
from tokred.streaming.counts import KEYS, BlockSizes, frame_counts
from tokred.streaming.pooling import Pooling
from tokred.tokens import Grid

VARIANTS = {"EventfulTokenwiseBlock": "tokenwise", "EventfulMatmul1Block": "qk", "EventfulBlock": "full"}
PLAIN = "Block"
GATES = {
    "qkv_gate": "qkv",
    "projection_gate": "projection",
    "mlp_gate": "mlp",
    "v_gate": "value",
    "matmul_gate": "attention",
}
_KNOWN = (
    r"blocks\.\d+\.(input_layer_norm|qkv|projection|mlp_layer_norm|mlp_1|mlp_2)\.(weight|bias)"
    r"|blocks\.\d+\.relative_position\.[xy]_embedding|position_encoding\.encoding"
)


@dataclass
class Block:
    """One block of a file: its operations, its state, its sizes; ``kept`` = rows that ATS kept in the last frame."""

    parts: BlockParts
    gated: GatedBlock
    sizes: BlockSizes
    fraction: float | None
    plain: bool
    kept: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.plain:
            self.gated = GatedBlock(self.gated.settings, self.gated.pooling)
        return self.gated(self.parts, x, None if self.fraction is None else self._select)

    def _select(self, attention: Tensor, v: Tensor) -> Tensor:
        """The rows that the official ATS keeps, in its order."""
        assert self.fraction is not None
        count = int(self.fraction * (attention.shape[2] - 1))
        scores = official_scores(attention, v, 1)[: attention.shape[0]]
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values + 1
        index = F.pad(best, (1, 0))
        self.kept = stabilised(index, self.kept)
        return self.kept


class Backbone:
    """The official ``ViTBackbone``: positions, then blocks.

    Args:
        weights: official names; config: as in the file; policy: of every gate, None = plain blocks.
        grid: patches of the input.
    """

    def __init__(self, weights: dict[str, Tensor], config: Settings, policy: Policy | None, grid: tuple[int, ...]):
        unknown = [name for name in weights if not re.fullmatch(_KNOWN, name)]
        if unknown:
            raise Malformed(f"weights that are not understood: {', '.join(unknown[:4])}")
        side = config.take("position_encoding_size")
        table = weights["position_encoding.encoding"]
        self.prefix = int(config.flag("has_class_token", True))
        self.positions = resized(table, tuple(side), grid, self.prefix)
        depth = config.whole("depth", least=1)
        block = dict(config.take("block_config"))
        kind = config.choice("block_class", (*VARIANTS, PLAIN), PLAIN)
        windowed = config.take("window_indices", None) or []
        other = config.take("windowed_class", None) or kind
        overrides = config.take("windowed_overrides", None) or {}
        self.blocks = []
        for i in range(depth):
            values = {**block, **overrides} if i in windowed else {k: v for k, v in block.items() if k != "window_size"}
            mine = {n.removeprefix(f"blocks.{i}."): w for n, w in weights.items() if n.startswith(f"blocks.{i}.")}
            settings = Settings(values, f"block_config of block {i}")
            self.blocks.append(_block(mine, settings, other if i in windowed else kind, policy, grid, self.prefix))

    def __call__(self, x: Tensor) -> Tensor:
        x = x + self.positions
        for block in self.blocks:
            entering = x.shape[1]
            x = block(x)
            if block.fraction is not None:
                block.sizes = replace(block.sizes, tokens=entering, columns=entering, left=x.shape[1])
        return x

    def counts(self, batch: int) -> dict[str, int]:
        """The official counters of the last frame."""
        total = dict.fromkeys(KEYS, 0)
        for block in self.blocks:
            for key, value in frame_counts(block.gated, block.sizes).items():
                total[key] += value
        total["add_flops"] += batch * self.positions.numel()
        return total

    def reset(self) -> None:
        """A new video."""
        for block in self.blocks:
            block.gated = GatedBlock(block.gated.settings, block.gated.pooling)
            block.kept = None


def is_backbone(golden: Golden) -> bool:
    """Whether a file is of a ViT backbone over several frames."""
    return golden.settings.take("model", None) == "ViTBackbone"


@torch.no_grad()
def backbone(golden: Golden, ledger: Ledger) -> None:
    """Several frames through a backbone: outputs, indices of every gate, the official counters, the plain model."""
    settings = golden.settings
    settings.choice("model", ("ViTBackbone",))
    frames = golden.floats("x", dims=4)
    t, b, _, _ = frames.shape
    for name, size in (("T", t), ("B", b)):
        settings.agree(name, size)
    settings.without_effect("static_tokens", "max_abs_vs_vanilla", "zero_error_tokens_seen")
    grid = tuple(settings.items("input_size"))
    weights = golden.weights(frames.dtype)
    policy = policy_of(settings)
    ours = Backbone(weights, settings, policy, grid)
    plain = Backbone(weights, settings, None, grid)
    resets = set(settings.items("reset_before_frames", []))
    found: list[list[dict[str, int]]] = [[], []]
    for i, frame in enumerate(frames):
        if i in resets:
            ours.reset()
            plain.reset()
        ledger.value(f"out[{i}]", ours(frame), golden.floats("out", 4)[i], absolute=OUT)
        ledger.value(f"vanilla_out[{i}]", plain(frame), golden.floats("vanilla_out", 4)[i], absolute=OUT)
        _decisions(golden, ledger, ours, i)
        for counts, model in zip(found, (ours, plain), strict=True):
            counts.append(model.counts(b))
    keys = settings.items("count_keys")
    for name, counts in zip(("counts", "vanilla_counts"), found, strict=True):
        table = torch.tensor([[c.get(key, 0) for key in keys] for c in counts])
        ledger.decision(name, table, golden.indices(name, 2))


def _decisions(golden: Golden, ledger: Ledger, ours: Backbone, frame: int) -> None:
    """What each gate sent, and what ATS kept."""
    seen = 0
    for i, block in enumerate(ours.blocks):
        for official, name in GATES.items():
            key = f"idx.t{frame}.blocks.{i}.{official}"
            if key in golden or name in block.gated.chosen:
                chosen = block.gated.chosen.get(name)
                ledger.decision(key, _places(chosen), golden.indices(key, 2).sort(dim=1).values)
                seen += 1
        if block.fraction is not None and block.kept is not None:
            key = f"ats.t{frame}.blocks.{i}"
            ledger.decision(key, block.kept, golden.indices(key, 2))


def _places(chosen: Chosen | None) -> Tensor:
    return torch.empty(0, 0, dtype=torch.int64) if chosen is None else chosen.index


def _block(
    weights: dict[str, Tensor], config: Settings, kind: str, policy: Policy | None, grid: tuple[int, ...], prefix: int
) -> Block:
    heads = config.whole("heads", least=1)
    dim = weights["qkv.weight"].shape[1]
    hidden = weights["mlp_1.weight"].shape[0]
    config.agree("dim", dim)
    if int(dim * config.number("mlp_ratio")) != hidden:
        raise Malformed(f"{config.where}.mlp_ratio contradicts the hidden width {hidden}")
    if kind not in (*VARIANTS, PLAIN):
        raise Malformed(f"block class {kind!r} is not one of {', '.join(VARIANTS)}, {PLAIN}")
    config.agree("matmul_2_cast", None, "float32 outputs")
    window, pool = _pair(config, "window_size"), _square(config, "pool_size")
    table = config.take("relative_embedding_size", None)
    fraction = config.take("ats_fraction", None)
    settings = GateSettings(
        policy if policy is not None else Fraction(1.0),
        VARIANTS.get(kind, "tokenwise"),
        forget=config.flag("stgt", False) and policy is not None,
        gate_before_norm=config.flag("gate_before_ln", False) and policy is not None,
    )
    config.without_effect("drop_path_rate")
    config.finish()
    sides = (grid[0], grid[-1]) if len(grid) > 1 else (1, grid[0])
    pooling = None if pool is None or window is not None else Pooling(pool, Grid(1, *sides), prefix)
    scale = (dim // heads) ** -0.5
    parts = _parts(weights, heads, dim, scale)
    n = prefix + sides[0] * sides[1]
    sizes = BlockSizes(n, dim, dim, heads, hidden, n if pooling is None else pooling.count)
    if table is not None:
        area = window if window is not None else sides
        position = RelativePosition(
            weights["relative_position.y_embedding"], weights["relative_position.x_embedding"], area, pool or 1
        )
        parts = replace(parts, bias=position)
        sizes = replace(sizes, positions=position.keys)
    if window is not None:
        windows = Windows(parts, sides, window, weights["qkv.bias"], pool or 1)
        parts = replace(parts, attend=windows)
        padded = windows.tokens > n - prefix
        sizes = replace(sizes, span=windows.products, queries=windows.tokens, padded=padded)
    return Block(parts, GatedBlock(settings, pooling), sizes, fraction, policy is None)


def _pair(config: Settings, name: str) -> tuple[int, int] | None:
    """A size given as one number or two, None where there is none."""
    given = config.take(name, None)
    return None if given is None else (given, given) if isinstance(given, int) else tuple(given)


def _square(config: Settings, name: str) -> int | None:
    pair = _pair(config, name)
    if pair is not None and pair[0] != pair[1]:
        raise Malformed(f"{config.where}.{name} = {list(pair)}: squares alone are pooled")
    return None if pair is None else pair[0]


def _parts(weights: dict[str, Tensor], heads: int, dim: int, scale: float) -> BlockParts:
    def norm(name: str) -> Rows:
        return lambda x: F.layer_norm(x, (dim,), weights[f"{name}.weight"], weights[f"{name}.bias"], NORM_EPS)

    def linear(name: str) -> Rows:
        return lambda x: F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    first, second = linear("mlp_1"), linear("mlp_2")
    return BlockParts(
        norm1=norm("input_layer_norm"),
        qkv=linear("qkv"),
        project=linear("projection"),
        norm2=norm("mlp_layer_norm"),
        feed=lambda x: second(F.gelu(first(x))),
        heads=heads,
        head_dim=dim // heads,
        scale=scale,
    )
