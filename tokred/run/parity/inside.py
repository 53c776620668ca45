"""A forward of an attached model that keeps its inside: what entered, each block's output, each step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tokred.attach import Attached
from tokred.compose import parts_of
from tokred.driver import Action, actions_of, perform, run_block
from tokred.probe import Probe
from tokred.reducer import Site
from tokred.reduction import Reduction
from tokred.tokens import Tokens


@dataclass(frozen=True)
class StepView:
    """One step that changed the tokens: where, what was decided, the tokens before and after, and the statistics."""

    site: Site
    reduction: Reduction
    before: Tokens
    after: Tokens
    probe: Probe


@dataclass(frozen=True)
class Inside:
    """The inside of one forward.

    Args:
        embed: tokens entering block 0, (B, N, C); blocks: output of each block; steps: in order.
        tokens: what reached the head.
    """

    embed: Tensor
    blocks: tuple[Tensor, ...]
    steps: tuple[StepView, ...]
    tokens: Tokens


def run_inside(attached: Attached, pixels: Tensor) -> Inside:
    """Run the blocks as ``attached`` does, and keep what passes by.

    Args:
        pixels: model input, (B, C, ...).
    """
    adapter, host = attached.adapter, attached.host
    parts = parts_of(attached.reducer)
    steps: list[StepView] = []

    def watch(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
        after, reduction = perform(action, tokens, probe, site)
        if reduction is not None:
            steps.append(StepView(site, reduction, tokens, after, probe))
        return after, reduction

    tokens = adapter.embed(host, pixels, None)
    embed = tokens.x
    outputs = []
    proportional = any(part.proportional for part in parts)
    for index, actions in enumerate(actions_of(parts, adapter.geometry(host))):
        tokens, _ = run_block(adapter, host, index, tokens, actions, proportional, watch)
        outputs.append(tokens.x)
    return Inside(embed, tuple(outputs), tuple(steps), tokens)
