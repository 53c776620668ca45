"""What a reducer declares about itself, and the small records that it exchanges with the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tokred.probe import STATISTICS
from tokred.schedule import Step
from tokred.tokens import Grid

SITES = ("before_block", "after_attention", "after_block")
"""Where a step can act: before a block, between its attention and its MLP, after it."""


PROPERTIES = ("frames", "class_token", "sample_seed", "training_seed")
"""What a reducer may need of the tokens, besides statistics of a block."""


@dataclass(frozen=True)
class Capabilities:
    """What a reducer needs and does: declared, never guessed.

    Args:
        needs: statistics it reads from the probe (``tokred.probe.STATISTICS``) and properties of the tokens:
            "frames" (equal temporal groups), "class_token", "sample_seed", "training_seed" (the same number, in
            training mode only).
        changes_length: whether it changes the number of tokens.
        stateful: keeps state between forwards, cleared by ``reset``.
        trainable: has parameters.
        keeps_frames: every temporal group keeps the same count, so "frames" still holds after it.
        keeps_grid: the patch tokens stay on a rectangular grid.
        static_counts: token counts depend on shapes alone.
        keeps_order: patch tokens come out in their original order.
        identity_at_zero: strength zero is the unreduced model; else the reason why not.
        channel_blind: the order of the channels (of features, and of queries, keys and values inside a head) changes no
            decision.
        one_graph: torch.compile and torch.export take a forward as one graph; else the reason why not.
        onnx: what torch.export makes of it can be written as an ONNX file; else the reason why not.
    """

    needs: frozenset[str] = frozenset()
    changes_length: bool = True
    stateful: bool = False
    trainable: bool = False
    keeps_frames: bool = False
    keeps_grid: bool = False
    static_counts: bool = True
    keeps_order: bool = False
    identity_at_zero: bool | str = True
    channel_blind: bool = False
    one_graph: bool | str = True
    onnx: bool | str = True

    def __post_init__(self) -> None:
        unknown = self.needs - set(STATISTICS) - set(PROPERTIES)
        if unknown:
            raise ValueError(
                f"needs {sorted(unknown)} is not known; known are {STATISTICS} and {', '.join(PROPERTIES)}"
            )


@dataclass(frozen=True)
class Site:
    """Where a reducer is being asked.

    Args:
        name: one of ``SITES``.
        step: the schedule's step: block, index, amount.
        depth: number of blocks of the backbone.
        frames: temporal length T of the original grid.
    """

    name: str
    step: Step
    depth: int
    frames: int

    @property
    def block(self) -> int:
        """0-based block."""
        return self.step.block

    @property
    def index(self) -> int:
        """Number of the step, from 0."""
        return self.step.index

    def left(self, n: int) -> int:
        """How many of n patch tokens the schedule leaves here."""
        return self.step.left(n)


class Promise(NamedTuple):
    """What a step will leave.

    Args:
        left: patch tokens after it; groups: equal temporal groups after it, None = none.
        notes: corrections that it makes, e.g. a clamped amount.
        grid: the smaller grid that later steps see, where it cuts one out (``Reduction.grid``) on a hierarchical host.
    """

    left: int
    groups: int | None = None
    notes: tuple[str, ...] = ()
    grid: Grid | None = None


@dataclass(frozen=True)
class SmallerInput:
    """A reduction of the input itself, before any token exists.

    Args:
        grid: patch grid after it; frames: indices of the tubelets that stay, None = all.
    """

    grid: Grid
    frames: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Strength:
    """The one number that makes a method stronger, for budgets.

    Args:
        name: the argument of the constructor.
        weakest, strongest: the range on this backbone; both allowed.
        whole: whether it is a whole number.
    """

    name: str
    weakest: float
    strongest: float
    whole: bool
