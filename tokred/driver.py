"""Run the blocks of a host with reduction steps between: the one loop behind attach, planning and tracing.

All state of a forward travels in ``Tokens``: nothing is left for the next forward, so recomputation, threads and
copies are safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.utils.checkpoint
from torch import nn

from tokred.backbones.adapter import Adapter
from tokred.probe import Probe
from tokred.reducer import Site, TokenReducer
from tokred.reduction import Reduction, advance
from tokred.schedule import ScheduleError, Step
from tokred.tokens import Tokens

ATTENTION_NEEDS = frozenset(
    {"query", "key", "value", "ffn", "class_row", "mean_query_row", "received", "entropy", "attention"}
)


@dataclass(frozen=True)
class Action:
    """One part of a reducer at one block."""

    reducer: TokenReducer
    step: Step

    @property
    def reads_attention(self) -> bool:
        """Whether it needs the block taken apart."""
        return self.reducer.site == "after_attention" or bool(self.reducer.capabilities.needs & ATTENTION_NEEDS)


Perform = Callable[[Action, Tokens, Probe, Site], Tokens]
Actions = tuple[tuple[Action, ...], ...]


def actions_of(parts: Sequence[TokenReducer], depth: int) -> Actions:
    """Per block, the steps of all parts in order.

    Raises:
        ScheduleError: a schedule does not fit the depth.
    """
    by_part = [(part, part.steps(depth)) for part in parts]
    return tuple(tuple(Action(part, steps[i]) for part, steps in by_part if i in steps) for i in range(depth))


def perform(action: Action, tokens: Tokens, probe: Probe, site: Site) -> Tokens:
    """Ask the reducer, carry out what it decided."""
    reduction = action.reducer.reduce(tokens, probe, site)
    return tokens if reduction is None else advance(tokens, reduction)


def recorder(records: list[tuple[Site, Reduction]]) -> Perform:
    """A ``perform`` that also writes down each reduction."""

    def note(action: Action, tokens: Tokens, probe: Probe, site: Site) -> Tokens:
        reduction = action.reducer.reduce(tokens, probe, site)
        if reduction is None:
            return tokens
        records.append((site, reduction))
        return advance(tokens, reduction)

    return note


@dataclass(frozen=True)
class BlockCounts:
    """Tokens in the attention and in the MLP of one block, prefix included."""

    attention: int
    mlp: int


def run_block(
    adapter: Adapter,
    block: nn.Module,
    tokens: Tokens,
    actions: tuple[Action, ...],
    depth: int,
    proportional: bool,
    perform: Perform,
) -> tuple[Tokens, BlockCounts]:
    """One block with its steps.

    A block that no step takes apart runs through the host's own code: bit for bit the host.
    """
    for action in _at("before_block", actions):
        probe = Probe(tokens.x, prefix=tokens.prefix, size=tokens.size, needs=action.reducer.capabilities.needs)
        tokens = perform(action, tokens, probe, _site(action, depth, tokens))
    log_size = tokens.size.log() if proportional and tokens.size is not None else None
    entering = tokens
    after = _at("after_block", actions)
    if log_size is None and not any(action.reads_attention for action in actions):
        tokens = tokens.with_x(block(tokens.x))
        for action in after:
            probe = Probe(entering.x, prefix=tokens.prefix, size=entering.size, needs=action.reducer.capabilities.needs)
            tokens = perform(action, tokens, probe, _site(action, depth, tokens))
        return tokens, BlockCounts(entering.count, entering.count)

    attended = adapter.attend(block, tokens.x, log_size)
    tokens = tokens.with_x(attended.x)

    def look(action: Action) -> Probe:
        return Probe(
            entering.x,
            attended.q,
            attended.k,
            attended.v,
            scale=attended.scale,
            prefix=tokens.prefix,
            log_size=log_size,
            size=entering.size,
            needs=action.reducer.capabilities.needs,
        )

    for action in _at("after_attention", actions):
        tokens = perform(action, tokens, look(action), _site(action, depth, tokens))
    fed = adapter.feed(block, tokens.x)
    counts = BlockCounts(entering.count, tokens.count)
    tokens = tokens.with_x(fed.x)
    for action in after:
        probe = look(action)
        probe.set_ffn(fed.branch)
        tokens = perform(action, tokens, probe, _site(action, depth, tokens))
    return tokens, counts


def run_blocks(
    adapter: Adapter,
    blocks: Sequence[nn.Module],
    tokens: Tokens,
    actions: Actions,
    *,
    proportional: bool,
    perform: Perform = perform,
    checkpoint: bool = False,
) -> tuple[Tokens, tuple[BlockCounts, ...]]:
    """All blocks in order; see ``run_block``. With ``checkpoint`` each block is recomputed in the backward pass."""
    counts = []
    depth = len(blocks)
    for block, at in zip(blocks, actions, strict=True):
        if checkpoint and torch.is_grad_enabled():
            tokens, count = torch.utils.checkpoint.checkpoint(
                run_block, adapter, block, tokens, at, depth, proportional, perform, use_reentrant=False
            )
        else:
            tokens, count = run_block(adapter, block, tokens, at, depth, proportional, perform)
        counts.append(count)
    return tokens, tuple(counts)


def _at(site: str, actions: tuple[Action, ...]) -> list[Action]:
    return [action for action in actions if action.reducer.site == site]


def _site(action: Action, depth: int, tokens: Tokens) -> Site:
    if tokens.groups is None and "frames" in action.reducer.capabilities.needs:
        raise ScheduleError(
            f"{action.reducer.spec} at block {action.step.block} needs equal temporal groups, which an earlier step "
            "did not keep"
        )
    return Site(action.reducer.site, action.step, depth, tokens.grid.t)
