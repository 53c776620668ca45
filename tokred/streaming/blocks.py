"""A transformer block that computes only the tokens that changed (Eventful Transformers)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tokred.backbones.parts import BlockParts
from tokred.gather import take
from tokred.precision import wide
from tokred.streaming.gates import COLUMN, ROW, Gated, TokenBuffer, TokenGate
from tokred.streaming.places import read
from tokred.streaming.policies import Chosen, Policy
from tokred.streaming.pooling import Pooling
from tokred.streaming.products import AttentionValue, QueryKey

VARIANTS = ("tokenwise", "qk", "full")
GATES = ("qkv", "projection", "mlp")
"""The gates whose policy decides; those of the attention product follow "qkv"."""

Select = Callable[[Tensor, Tensor], Tensor]
"""From the attention map (B, H, N, M) and the values (B, H, M, d) to the rows that stay, (B, n)."""


@dataclass(frozen=True)
class GateSettings:
    """How a block is gated.

    Args:
        policy: which tokens each of the three gates sends.
        variant: "tokenwise" gates the linear layers; "qk" also keeps Q K^T up to date; "full" also A V.
        forget: STGT: gates compare with the last frame instead of what was last sent ("tokenwise" alone).
        gate_before_norm: the gates in front of qkv and MLP compare tokens before their norm.
        refresh: frames from one recomputation of A V from scratch to the next, 0 = never, as published ("full" alone).
        cast: precision of A and V in the kept product, None = the model's ("full" alone).
    """

    policy: Policy
    variant: str = "full"
    forget: bool = False
    gate_before_norm: bool = False
    refresh: int = 0
    cast: torch.dtype | None = None


class GatedBlock:
    """One block's state over time.

    Attributes:
        frames: frames since the flush, which was number 1; without a refresh 2 is any later one.
        chosen: what each gate sent on the last frame, by gate; empty after a flush.
    """

    def __init__(self, settings: GateSettings, pooling: Pooling | None = None) -> None:
        self.settings = settings
        self.pooling = pooling
        self.frames = 0
        self.chosen: dict[str, Chosen] = {}
        self.gates = {name: TokenGate(settings.policy, forget=settings.forget) for name in GATES}
        self.buffers = {name: TokenBuffer() for name in GATES}
        self.query_key = QueryKey()
        self.attention_value = AttentionValue(settings.cast)
        self.pooled_v: Tensor | None = None

    def __call__(self, parts: BlockParts, x: Tensor, select: Select | None = None) -> Tensor:
        """One frame.

        Args:
            parts: the block; x: (B, N, C) tokens entering it.
            select: choose among the rows of attention: fewer tokens leave the block.
        Returns:
            (B, n, C); at the first frame what the block itself computes.
        """
        early = self.settings.gate_before_norm
        flush = self.frames == 0
        self.chosen = {}
        gated = self._gate("qkv", x if early else parts.norm1(x))
        fresh = parts.qkv(parts.norm1(gated.values) if early else gated.values)
        before = None if flush or gated.chosen is None else self._old_values(gated.chosen)
        qkv = self.buffers["qkv"](fresh, gated.chosen)
        attended, kept = self._attend(parts, qkv, gated.chosen, before, select)
        y = self._gated("projection", attended.to(x.dtype), parts.project) + (x if kept is None else take(x, kept))
        out = self._gated("mlp", y, _both(parts.norm2, parts.feed)) if early else self._mlp(parts, y)
        # A number that nothing reads would make each frame another graph for torch.compile.
        self.frames = self.frames + 1 if self.settings.refresh else min(self.frames + 1, 2)
        return out + y

    def refuses(self, x: Tensor) -> str | None:
        """Why tokens (B, N, C) do not continue this state; None where they do."""
        reference = self.gates["qkv"].reference
        if reference is None:
            return None
        if reference.shape != x.shape:
            return (
                f"the state is of (streams, tokens, width) = {tuple(reference.shape)}, this frame is {tuple(x.shape)}"
            )
        buffer = self.buffers["mlp"].value
        if buffer is not None and (buffer.dtype, buffer.device) != (x.dtype, x.device):
            return f"the state is {buffer.dtype} on {buffer.device}, this frame is {x.dtype} on {x.device}"
        return None

    def change(self, settings: GateSettings) -> None:
        """Another policy from the next frame on; the state stays."""
        self.settings = settings
        for gate in self.gates.values():
            gate.policy = settings.policy

    def tensors(self) -> list[Tensor]:
        """All state."""
        held = [gate.reference for gate in self.gates.values()] + [buffer.value for buffer in self.buffers.values()]
        held += [self.query_key.value, self.attention_value.value, self.attention_value.attention, self.pooled_v]
        return [tensor for tensor in held if tensor is not None]

    def _mlp(self, parts: BlockParts, y: Tensor) -> Tensor:
        return self._gated("mlp", parts.norm2(y), parts.feed)

    def _gate(self, name: str, x: Tensor) -> Gated:
        gated = self.gates[name](x)
        if gated.chosen is not None:
            self.chosen[name] = gated.chosen
        return gated

    def _gated(self, name: str, x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
        """An operation on the tokens that changed, the others out of the buffer: (B, N, C)."""
        gated = self._gate(name, x)
        return self.buffers[name](operation(gated.values), gated.chosen)

    def _old_values(self, chosen: Chosen) -> Tensor | None:
        """Values that are about to be replaced, (B, K, H * d)."""
        buffer = self.buffers["qkv"].value
        if self.settings.variant != "full" or self.pooling is not None or buffer is None:
            return None
        return take(buffer[..., 2 * buffer.shape[2] // 3 :], chosen.index)

    def _attend(
        self, parts: BlockParts, qkv: Tensor, rows: Chosen | None, before: Tensor | None, select: Select | None
    ) -> tuple[Tensor, Tensor | None]:
        """Attention output (B, n, H * d) and the rows that stayed, None = all."""
        if self.settings.variant == "tokenwise" and self.pooling is None and select is None:
            return parts.attention(qkv), None
        q, k, v = parts.split(qkv)
        columns = rows
        if self.pooling is not None:
            k, v = self.pooling(k), self.pooling(v)
            columns = None if rows is None else self.pooling.cells(rows)
        # Maps have their keys first, (B, H, M, N): see tokred.streaming.products.
        if self.settings.variant == "tokenwise":
            logits = (k * parts.scale) @ q.transpose(-2, -1)
        else:
            logits = self.query_key(q, k, rows, columns, parts.scale)
        if parts.bias is not None:
            logits = logits + parts.bias(q).transpose(-2, -1)
        attention = wide(logits).softmax(dim=-2).to(logits.dtype)
        kept = None if select is None else select(attention.transpose(-2, -1), v)
        if kept is not None:
            attention = read(attention, kept, COLUMN)
        if self.settings.variant == "full":
            out = self._times_values(attention, v, columns, before)
        else:
            out = attention.transpose(-2, -1) @ v
        return out.transpose(1, 2).flatten(2), kept

    def _times_values(self, attention: Tensor, v: Tensor, columns: Chosen | None, before: Tensor | None) -> Tensor:
        """A V with only the chosen keys let through, (B, H, N, d)."""
        if columns is not None:
            self.chosen["value"] = self.chosen["attention"] = columns
        refresh = self.settings.refresh
        scratch = columns is None or (refresh > 0 and self.frames % refresh == 0)
        old = new = None
        if columns is not None and not scratch:
            heads, width = v.shape[1], v.shape[3]
            new = read(v, columns.index, ROW)
            if self.pooling is None:
                assert before is not None
                old = before.unflatten(2, (heads, width)).transpose(1, 2)
            else:
                assert self.pooled_v is not None
                old = read(self.pooled_v, columns.index, ROW)
        if self.pooling is not None:
            self.pooled_v = v.detach()
        return self.attention_value(attention, v, None if scratch else columns, new, old)


def _both(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: second(first(x))
