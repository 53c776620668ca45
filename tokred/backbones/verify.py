"""Prove at attach time that a block taken apart computes what the host's block computes.

A new release of a host library that changes a block is refused here instead of being silently wrong.
"""

from __future__ import annotations

import torch
from torch import nn

from tokred.backbones.adapter import Adapter, Unsupported

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def verify_adapter(adapter: Adapter, model: nn.Module, *, token_by_token: bool = False) -> None:
    """Run each distinct kind of block both ways on a few random tokens.

    Args:
        token_by_token: also as operations on each token alone.
    Raises:
        Unsupported: the two differ, so the adapter does not understand the block.
    """
    seen: set[tuple[str, ...]] = set()
    for i, block in enumerate(adapter.blocks(model)):
        kind = (adapter.variant(block), *(f"{name}:{type(m).__qualname__}" for name, m in block.named_modules()))
        weight = next((p for p in block.parameters() if p.is_floating_point()), None)
        if kind in seen or weight is None or weight.is_meta or weight.dtype not in TOLERANCE:
            continue
        seen.add(kind)
        generator = torch.Generator().manual_seed(0)
        tokens = adapter.example(model, i, generator)
        tokens = tokens.with_x(tokens.x.to(weight.device, weight.dtype))
        modes = [(m, m.training) for m in block.modules()]
        try:
            block.eval()
            with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
                own = adapter.own(block, tokens)
                others = [adapter.feed(block, adapter.attend(block, tokens, None).x).x]
                parts = adapter.token_parts(block) if token_by_token else None
                if parts is not None:
                    others.append(parts.whole(tokens.x))
        finally:
            for module, training in modes:
                module.training = training
        error = max((own - other).abs().max().item() for other in others)
        allowed = TOLERANCE[weight.dtype] * max(1.0, own.abs().max().item())
        if not error <= allowed:
            raise Unsupported(
                f"block {i} ({type(block).__module__}.{type(block).__qualname__}) taken apart differs from its own "
                f"forward by {error:.2g} (allowed {allowed:.2g}): {adapter.name} does not understand this version of it"
            )
