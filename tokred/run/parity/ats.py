"""Replay of ATS as the Eventful Transformers code runs it: plain blocks, frame after frame, with its defects."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.backbones.timm_vit import TimmViTAdapter
from tokred.driver import actions_of, recorder, run_blocks
from tokred.methods.ats import ATS
from tokred.reducer import Site
from tokred.reduction import Keep, Reduction
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import NORM_EPS, timm_block
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed
from tokred.tokens import Grid, Tokens

OUT = 1e-4
NAMES = {
    "input_layer_norm": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "mlp_layer_norm": "norm2",
    "mlp_1": "mlp.fc1",
    "mlp_2": "mlp.fc2",
}
"""Layers of a block in the Eventful Transformers code -> in timm."""

COUNTS = ("linear_flops", "bias_flops", "matmul_flops", "add_flops")


def is_plain(golden: Golden) -> bool:
    """Whether a file is of ATS on blocks that keep nothing over time."""
    take = golden.settings.take
    config = take("block_config", None)
    return isinstance(config, dict) and config.get("ats_fraction") is not None and take("block_class", "") == "Block"


@torch.no_grad()
def blocks(golden: Golden, ledger: Ledger) -> None:
    """Tokens of several frames through plain blocks with ATS in each: positions in order, outputs, counted work."""
    settings = golden.settings
    frames = golden.floats("x", dims=4)
    t, b, n, dim = frames.shape
    for name, size in (("T", t), ("B", b)):
        settings.agree(name, size)
    settings.choice("model", ("ViTBackbone",))
    for name, nothing in (("windowed_class", None), ("windowed_overrides", None), ("policy", None)):
        settings.agree(name, nothing, "plain blocks")
    settings.agree("window_indices", [], "plain blocks")
    settings.agree("policy_kwargs", {}, "plain blocks")
    settings.without_effect("static_tokens", "max_abs_vs_vanilla", "zero_error_tokens_seen")
    prefix = int(settings.flag("has_class_token"))
    if not prefix:
        raise Malformed("has_class_token is false: ATS reads the class token")
    side = settings.items("input_size")
    settings.agree("position_encoding_size", side, "the input (positions on another grid are not hosted)")
    weights = golden.weights(frames.dtype)
    host, reducer, geometry = _built(golden, weights, dim, n)
    resets = set(settings.items("reset_before_frames", []))
    counts = []
    for i, frame in enumerate(frames):
        if i in resets:
            reducer.reset()
        entering = Tokens(frame + weights["position_encoding.encoding"], Grid(1, 1, n - prefix), prefix=prefix)
        records: list[tuple[Site, Reduction]] = []
        tokens, seen = run_blocks(
            TimmViTAdapter(),
            host,
            entering,
            actions_of((reducer,), geometry),
            proportional=False,
            perform=recorder(records),
        )
        kept = {site.block: made.index for site, made in records if isinstance(made, Keep)}
        for block, count in enumerate(seen):
            index = kept.get(block, torch.arange(count.attention).expand(b, -1))
            ledger.decision(f"ats.t{i}.blocks.{block}", index, golden.indices(f"ats.t{i}.blocks.{block}", 2))
        for name in ("out", "vanilla_out"):  # without state over time the plain model is the same model
            ledger.value(f"{name}[{i}]", tokens.x, golden.floats(name, 4)[i], absolute=OUT)
        counts.append(_work(b, n, [(c.attention, c.mlp) for c in seen], geometry))
    keys = settings.items("count_keys")
    table = torch.tensor([[c.get(key, 0) for key in keys] for c in counts], device=frames.device)
    for name in ("counts", "vanilla_counts"):
        ledger.decision(name, table, golden.indices(name, 2))


def _built(golden: Golden, weights: dict[str, Tensor], dim: int, n: int) -> tuple[nn.Module, ATS, Geometry]:
    """A holder of timm blocks with the weights, ATS as published, and the sizes."""
    settings = golden.settings
    config = settings.inner("block_config")
    heads, fraction = config.whole("heads", least=1), config.number("ats_fraction")
    config.agree("dim", dim)
    if not 0 < fraction <= 1:
        raise Malformed(f"block_config.ats_fraction = {fraction} is not in (0, 1]")
    depth = settings.whole("depth", least=1)
    host = nn.Module()
    host.blocks = nn.ModuleList(
        timm_block(_renamed(weights, i), weights[f"blocks.{i}.qkv.weight"].dtype, heads, NORM_EPS) for i in range(depth)
    )
    hidden = weights["blocks.0.mlp_1.weight"].shape[0]
    config.agree("mlp_ratio", hidden // dim)
    settings.choice("block_class", ("Block",))
    config.finish()
    unknown = [name for name in weights if not re.match(r"blocks\.\d+\.|position_encoding\.encoding$", name)]
    if unknown:
        raise Malformed(f"weights that are not understood: {', '.join(unknown[:4])}")
    geometry = Geometry(
        depth=depth,
        dim=dim,
        heads=heads,
        head_dim=dim // heads,
        mlp_hidden=hidden,
        grid=Grid(1, 1, n - 1),
        prefix=1,
        classes=0,
        kernel=(1, 1, 1),
        video=False,
    )
    return host.eval(), ATS(float(fraction), stable=True, official=True).eval(), geometry


def _renamed(weights: dict[str, Tensor], block: int) -> dict[str, Tensor]:
    """The weights of one block under timm's names."""
    found = {}
    for name, tensor in weights.items():
        match = re.fullmatch(rf"blocks\.{block}\.(\w+)\.(weight|bias)", name)
        if match is None:
            continue
        if match.group(1) not in NAMES:
            raise Malformed(f"weights that are not understood: {name}")
        found[f"{NAMES[match.group(1)]}.{match.group(2)}"] = tensor
    if not found:
        raise Malformed(f"there are no weights of block {block}")
    return found


def _work(b: int, n: int, tokens: list[tuple[int, int]], geometry: Geometry) -> dict[str, int]:
    """What the published counters count: one per multiply-add, bias or addition; only kept rows are computed."""
    d, hidden = geometry.dim, geometry.mlp_hidden
    work = dict.fromkeys(COUNTS, 0)
    for entering, left in tokens:
        work["linear_flops"] += 3 * entering * d * d + left * d * (d + 2 * hidden)
        work["bias_flops"] += 3 * entering * d + left * (2 * d + hidden)
        work["matmul_flops"] += entering * d * (entering + left)
        work["add_flops"] += 2 * left * d
    work["add_flops"] += n * d  # positions
    return {name: b * value for name, value in work.items()}
