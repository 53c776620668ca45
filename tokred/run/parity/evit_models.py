"""Replay of EViT's end-to-end vectors on timm's image models: indices, scores, block outputs, logits, gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

import tokred
from tokred.attach import Attached
from tokred.gather import take
from tokred.methods.evit import EViT
from tokred.reducer import TokenReducer
from tokred.reduction import Fuse
from tokred.run.parity.evit import decided, kept_positions
from tokred.run.parity.golden import Golden
from tokred.run.parity.hosts import timm_vit
from tokred.run.parity.inside import Inside, run_inside
from tokred.run.parity.ledger import Ledger
from tokred.run.parity.settings import Malformed, Settings

LOGITS = 1e-5


def end_to_end(golden: Golden, ledger: Ledger) -> None:
    """A whole model with reduction in some blocks, and the gradients through it."""
    settings = golden.settings
    images = golden.floats("x", dims=4)
    weights = golden.weights(images.dtype)
    settings.agree("B", images.shape[0])
    side = settings.take("img_size", None)
    if side != images.shape[2] or side != images.shape[3]:
        ledger.notes.append(f"positions of {side} pixels resized to {images.shape[2]} x {images.shape[3]}")
    _resize_positions(weights, images)
    host = timm_vit(weights, images, settings, "token")
    depth = settings.whole("depth", len(host.blocks), least=1)  # type: ignore[arg-type]
    reducer = reducer_for(settings, depth, settings.flag("fuse_token"))
    attached = tokred.attach(host, reducer)
    settings.agree("n_tokens_input_excl_cls", attached.geometry.grid.patches)
    # Where tokens really go is compared below; what counts as a shrinking block is the file's own word.
    settings.without_effect("shrink_blocks")

    with torch.no_grad():
        inside = run_inside(attached, images)
        blocks = [step.site.block for step in inside.steps]
        ledger.counts("blocks with idx", blocks, golden.numbered(r"block(\d+)\.idx"))
        counts = [x.shape[1] - 1 for x in inside.blocks]
        ledger.counts("token counts", counts, settings.take("token_counts_after_block_excl_cls", counts))
        _steps(golden, ledger, inside)
        for i in golden.numbered(r"block(\d+)\.out"):
            if i >= depth:
                raise Malformed(f"there is block{i}.out, but the model has {depth} blocks")
            ledger.value(f"block{i}.out", inside.blocks[i], golden.floats(f"block{i}.out"))
        logits = attached(images)
    ledger.value("logits", logits, golden.floats("logits"), absolute=LOGITS)
    if "logits_float64" in golden:
        ledger.logits64("logits_float64", logits, golden.floats("logits_float64"), LOGITS)
    _gradients(golden, ledger, attached, images)


def reducer_for(settings: Settings, depth: int, fuse: bool) -> TokenReducer:
    """EViT as configured and called: per block a configured rate, a run-time rate, a run-time count.

    A block reduces where its configured and its run-time rate are below one, or where it gets a count.
    """
    configured = _per_block(settings, "keep_rate", depth)
    runtime = _per_block(settings, "runtime_keep_rate", depth)
    counts = _per_block(settings, "runtime_tokens", depth)
    rates: dict[int, float] = {}
    tokens: dict[int, int] = {}
    for i in range(depth):
        count, base = counts[i], _or(configured[i], 1.0)
        rate = _or(runtime[i], base)
        if count is not None:
            if count != int(count):
                raise Malformed(f"runtime_tokens at block {i} = {count} is not a whole number")
            tokens[i] = int(count)
        elif base < 1 and rate < 1:
            rates[i] = rate
    parts: list[TokenReducer] = []
    if rates or not tokens:
        parts.append(EViT(tuple(rates.values()) or 1.0, at=tuple(rates), fuse=fuse))
    if tokens:
        parts.append(EViT(tokens=tuple(tokens.values()), at=tuple(tokens), fuse=fuse))
    return parts[0] if len(parts) == 1 else tokred.compose(*parts)


def _steps(golden: Golden, ledger: Ledger, inside: Inside) -> None:
    original: Tensor | None = None
    for step in inside.steps:
        name = f"block{step.site.block}."
        if f"{name}idx" not in golden:
            continue
        decided(golden, ledger, name, step.reduction)
        index = kept_positions(step.reduction)
        inner = index[:, 1:] - 1
        original = inner if original is None else original.gather(1, inner)
        if f"{name}orig_idx" in golden:
            ledger.decision(f"{name}orig_idx", original, golden.indices(f"{name}orig_idx"))
        if f"{name}cls_attn" in golden:
            ledger.value(f"{name}cls_attn", step.probe.class_row[:, 1:], golden.floats(f"{name}cls_attn"))
        if f"{name}x_before" in golden:
            ledger.value(f"{name}x_before", step.before.x, golden.floats(f"{name}x_before"))
        ledger.bits(f"{name}kept rows", step.after.x[:, : index.shape[1]], take(step.before.x, index))
        if f"{name}x_after" in golden:
            ledger.value(f"{name}x_after", step.after.x, golden.floats(f"{name}x_after"))
        if isinstance(step.reduction, Fuse):
            original = F.pad(original, (0, 1), value=-1)


def _gradients(golden: Golden, ledger: Ledger, attached: Attached, images: Tensor) -> None:
    """Gradients of sum(logits * cotangent)."""
    names = [name for name in golden.matching(r"grad\..*") if name != "grad.cotangent"]
    if not names and "grad.cotangent" not in golden:
        return
    images = images.clone().requires_grad_()
    (attached(images) * golden.floats("grad.cotangent", dims=2)).sum().backward()
    parameters = dict(attached.host.named_parameters())
    for name in names:
        key = name.removeprefix("grad.")
        if key != "x" and key not in parameters:
            raise Malformed(f"{name}: the model has no parameter {key}")
        gradient = images.grad if key == "x" else parameters[key].grad
        if gradient is None:
            ledger.failures.append(f"{name}: no gradient arrives")
        theirs = golden.floats(name)
        if gradient is not None:
            ledger.value(name, gradient, theirs)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _per_block(settings: Settings, name: str, depth: int) -> list[float | None]:
    value = settings.take(name, None)
    values = value if isinstance(value, list) else [value] * depth
    if len(values) != depth:
        raise Malformed(f"{name} has {len(values)} entries for {depth} blocks")
    for entry in values:
        if entry is not None and (isinstance(entry, bool) or not isinstance(entry, (int, float)) or not entry > 0):
            raise Malformed(f"{name} = {entry!r} is not a positive number")
    return values


def _resize_positions(weights: dict[str, Tensor], images: Tensor) -> None:
    """Positions for another grid as EViT's code takes them: bicubic, square grids only, the class token's as it is."""
    if "pos_embed" not in weights or weights["pos_embed"].ndim != 3 or "patch_embed.proj.weight" not in weights:
        raise Malformed("the weights have no pos_embed and patch_embed.proj.weight")
    kernel = weights["patch_embed.proj.weight"].shape[2:]
    rows, columns = (length // step for length, step in zip(images.shape[2:], kernel))
    table = weights["pos_embed"]
    old = round((table.shape[1] - 1) ** 0.5)
    if table.shape[1] - 1 == rows * columns:
        return
    if old * old != table.shape[1] - 1 or rows != columns:
        raise Malformed(f"{table.shape[1] - 1} positions for {rows} x {columns} patches: only square grids are resized")
    grid = table[:, 1:].transpose(1, 2).reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(rows, columns), mode="bicubic", align_corners=False)
    weights["pos_embed"] = torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
