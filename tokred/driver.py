"""Run the blocks of a host with reduction steps between: the one loop behind attach, planning and tracing.

All state of a forward travels in ``Tokens``: nothing is left for the next forward, so recomputation, threads and
copies are safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from tokred.advance import Move, advance, follow
from tokred.backbones.adapter import Adapter, Attended
from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.reducer import SITES, Site, TokenReducer
from tokred.reduction import Reduction
from tokred.saliency import RowsWanted
from tokred.schedule import ScheduleError, Step
from tokred.tokens import Grid, Tokens

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


Perform = Callable[[Action, Tokens, Probe, Site], tuple[Tokens, Reduction | None]]
Observe = Callable[[int, Tokens], None]
"""Told the index of each block and the tokens that left it."""

Actions = tuple[tuple[Action, ...], ...]


def actions_of(parts: Sequence[TokenReducer], geometry: Geometry) -> Actions:
    """Per block, the steps of all parts in order.

    Raises:
        ScheduleError: a schedule does not fit the backbone, or a site that does not exist.
    """
    for part in parts:
        if part.site not in SITES:
            raise ScheduleError(f"{part.spec} acts at site {part.site!r}: allowed are {', '.join(SITES)}")
    by_part = [(part, part.steps(geometry)) for part in parts]
    actions = tuple(
        tuple(Action(part, steps[i]) for part, steps in by_part if i in steps) for i in range(geometry.depth)
    )
    for index, at in enumerate(actions):
        runners = [action.reducer.spec for action in at if action.reducer.evaluates]
        readers = [a.reducer.spec for a in at if not a.reducer.evaluates and a.reads_attention]
        if runners and (readers or len(runners) > 1):
            raise ScheduleError(
                f"{runners[0]} runs block {index} itself, so {(runners[1:] + readers)[0]} cannot act inside it: give "
                "them different blocks"
            )
    return actions


def perform(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
    """Ask the reducer, carry out what it decided: the tokens after it, and the decision."""
    reduction = action.reducer.reduce(tokens, probe, site)
    return (tokens if reduction is None else advance(tokens, reduction)), reduction


def recorder(records: list[tuple[Site, Reduction]]) -> Perform:
    """A ``perform`` that also writes down each reduction."""

    def note(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
        tokens, reduction = perform(action, tokens, probe, site)
        if reduction is not None:
            records.append((site, reduction))
        return tokens, reduction

    return note


@dataclass(frozen=True)
class BlockCounts:
    """Tokens in the attention and in the MLP of one block, prefix included; queries that its attention runs; the grid
    that it runs on; multiply-adds per sample of light paths that ran instead of the MLP."""

    attention: int
    mlp: int
    queries: int
    grid: Grid
    light: int = 0


def run_block(
    adapter: Adapter,
    model: nn.Module,
    index: int,
    tokens: Tokens,
    actions: tuple[Action, ...],
    proportional: bool,
    perform: Perform,
) -> tuple[Tokens, BlockCounts]:
    """Block ``index`` of the model with its steps, and the change to the next stage where it ends one.

    A block that no step takes apart runs through the host's own code: bit for bit the host. Where several steps act in
    one block, later ones see what earlier ones left: features, and queries, keys and values moved along with them.
    """
    blocks = adapter.blocks(model)
    block, depth = blocks[index], len(blocks)
    moves: list[Move] = []

    def act(action: Action, tokens: Tokens, probe: Probe) -> Tokens:
        after, reduction = perform(action, tokens, probe, _site(action, depth, tokens))
        if reduction is not None:
            moves.append((reduction, tokens.size))
        return after

    for action in _at("before_block", actions):
        needs = action.reducer.capabilities.needs
        tokens = act(action, tokens, Probe(tokens.x, prefix=tokens.prefix, size=tokens.size, needs=needs))
    moves.clear()
    log_size = _log_size(tokens, proportional)
    entering = tokens
    attended: Attended | None = None
    runner = next((action for action in actions if action.reducer.evaluates), None)
    if runner is not None:
        tokens = _evaluate(adapter, block, runner, tokens, log_size, _site(runner, depth, tokens))
    elif (
        log_size is None
        and tokens.policy is None
        and tokens.light is None
        and not any(action.reads_attention for action in actions)
    ):
        tokens = tokens.with_x(adapter.run(block, tokens))
    else:
        attended = adapter.attend(block, tokens, log_size, _rows_wanted(actions, tokens))
        tokens = tokens.with_x(attended.x)

    def look(action: Action) -> Probe:
        return Probe(
            entering.x,
            *(attended[1:4] if attended is not None else (None, None, None)),
            scale=1.0 if attended is None else attended.scale,
            prefix=tokens.prefix,
            log_size=_log_size(tokens, proportional) if moves else log_size,
            size=tokens.size,
            needs=action.reducer.capabilities.needs,
            moves=tuple(moves),
            statistics=None if attended is None else attended.statistics,
            rows=None if attended is None else attended.rows,
        )

    branch: Tensor | None = None
    if attended is not None:
        for action in _at("after_attention", actions):
            tokens = act(action, tokens, look(action))
        run = partial(adapter.feed, block)
        x, branch = run(tokens.x) if tokens.light is None else tokens.light.feed(run, index, tokens.x)
        tokens = tokens.with_x(x)
    cover = entering.cover
    single = cover is None or cover.home is not None
    counts = BlockCounts(
        entering.count,
        tokens.fed,
        entering.count if single else entering.grid.patches,
        entering.grid,
        0 if tokens.light is None else tokens.light.macs(tokens.count),
    )
    before_mlp = len(moves)
    crossed = adapter.cross(model, index, tokens)
    if crossed is not None:
        moves.append((crossed.move, None))
        tokens = crossed.tokens
    for action in _at("after_block", actions):
        probe = look(action)
        if branch is not None and "ffn" in action.reducer.capabilities.needs:
            probe.set_ffn(follow(branch, moves[before_mlp:]))
        tokens = act(action, tokens, probe)
    return tokens, counts


def run_blocks(
    adapter: Adapter,
    model: nn.Module,
    tokens: Tokens,
    actions: Actions,
    *,
    proportional: bool,
    perform: Perform = perform,
    checkpoint: bool = False,
    observe: Observe | None = None,
) -> tuple[Tokens, tuple[BlockCounts, ...]]:
    """All blocks in order; see ``run_block``. With ``checkpoint`` each block is recomputed in the backward pass."""
    counts = []
    for index, at in enumerate(actions):
        if checkpoint and torch.is_grad_enabled():
            tokens, count = torch.utils.checkpoint.checkpoint(
                run_block, adapter, model, index, tokens, at, proportional, perform, use_reentrant=False
            )
        else:
            tokens, count = run_block(adapter, model, index, tokens, at, proportional, perform)
        counts.append(count)
        if observe is not None:
            observe(index, tokens)
    return tokens, tuple(counts)


def _evaluate(
    adapter: Adapter, block: nn.Module, runner: Action, tokens: Tokens, log_size: Tensor | None, site: Site
) -> Tokens:
    """A block that a reducer runs itself."""
    spec = runner.reducer.spec
    if log_size is not None or tokens.policy is not None:
        raise ScheduleError(f"{spec} runs block {site.block} itself, without masses or masks in its attention")
    if tokens.light is not None:
        raise ScheduleError(f"{spec} runs block {site.block} itself, so its MLP has no light path for some tokens")
    if tokens.cover is not None:
        raise ScheduleError(
            f"{spec} computes some tokens of a frame anew and takes the others over from the frame before; here "
            "windows reach over several frames and need them whole: allowed are backbones without windows"
        )
    parts = adapter.token_parts(block)
    return tokens if parts is None else tokens.with_x(runner.reducer.evaluate(parts, tokens, site))


def _log_size(tokens: Tokens, proportional: bool) -> Tensor | None:
    # On a whole grid a merged token stands on each of its places, so its mass is in the attention already.
    return tokens.size.log() if proportional and tokens.size is not None and tokens.cover is None else None


def _rows_wanted(actions: tuple[Action, ...], tokens: Tokens) -> RowsWanted | None:
    """Row statistics that the first step behind the attention will read; after it the rows are no longer these."""
    readers = [*_at("after_attention", actions), *_at("after_block", actions)]
    if not readers:
        return None
    needs = readers[0].reducer.capabilities.needs
    # Who can do with the attention of the class token, or of the mean query, reads that where it is of all tokens, for
    # the price of a single row.
    single = ("class_row" in needs and tokens.has_class_token) or ("mean_query_row" in needs and tokens.cover is None)
    received = "received" in needs and not single
    if not received and "entropy" not in needs:
        return None
    return RowsWanted(received, "entropy" in needs, tokens.size)


def _at(site: str, actions: tuple[Action, ...]) -> list[Action]:
    return [action for action in actions if action.reducer.site == site]


def _site(action: Action, depth: int, tokens: Tokens) -> Site:
    if tokens.groups is None and "frames" in action.reducer.capabilities.needs:
        raise ScheduleError(
            f"{action.reducer.spec} at block {action.step.block} needs equal temporal groups, which an earlier step "
            "did not keep"
        )
    return Site(action.reducer.site, action.step, depth, tokens.grid.t)
