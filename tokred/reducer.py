"""TokenReducer: what a method is. It decides; it never touches a backbone."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import Self

import torch
from torch import Tensor, nn

from tokred.backbones.geometry import Geometry
from tokred.probe import STATISTICS, Probe
from tokred.reduction import Keep, Reduction
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.tokens import Grid, Tokens

SITES = ("before_block", "after_attention", "after_block")
"""Where a step can act: before a block, between its attention and its MLP, after it."""


@dataclass(frozen=True)
class Capabilities:
    """What a reducer needs and does: declared, never guessed.

    Args:
        needs: statistics it reads from the probe (``tokred.probe.STATISTICS``) and properties of the tokens:
            "frames" (equal temporal groups), "class_token", "sample_seed".
        changes_length: whether it changes the number of tokens.
        stateful: keeps state between forwards, cleared by ``reset``.
        trainable: has parameters.
        keeps_frames: every temporal group keeps the same count, so "frames" still holds after it.
        keeps_grid: the patch tokens stay on a rectangular grid.
        static_counts: token counts depend on shapes alone.
        keeps_order: patch tokens come out in their original order.
        identity_at_zero: strength zero is the unreduced model; else the reason why not.
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

    def __post_init__(self) -> None:
        unknown = self.needs - set(STATISTICS) - {"frames", "class_token", "sample_seed"}
        if unknown:
            raise ValueError(
                f"needs {sorted(unknown)} is not known; known are {STATISTICS} and frames, class_token, sample_seed"
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


class TokenReducer(nn.Module, ABC):
    """Base of all methods: hyper-parameters, sites, a schedule and ``reduce``.

    A subclass writes a constructor with keyword hyper-parameters that calls ``super().__init__(schedule)``, sets
    ``site`` and ``capabilities``, and implements ``reduce``. Learned methods add sub-modules as usual.

    Attributes:
        site: where every step of the schedule acts, one of ``SITES``.
        capabilities: see ``Capabilities``; an instance may narrow it in its constructor.
        proportional: whether later attention adds log(mass) to the logits (skipped while all masses are one).
        pool: on mean-pooling hosts, "mean" over tokens or "mass"-weighted mean.
        strength: name of the constructor argument that budgets solve for ("" = none).
    """

    site: ClassVar[str] = "after_block"
    strength: ClassVar[str] = ""
    method: ClassVar[str] = ""
    capabilities: Capabilities = Capabilities()
    proportional: bool = False
    pool: str = "mean"
    _config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:
            # Unpickling and copying call __new__ bare and restore _config from the state; a wrong call fails in
            # __init__ right after this, with Python's own message.
            object.__setattr__(self, "_config", {})
            return self
        bound.apply_defaults()
        config = {k: v for k, v in list(bound.arguments.items())[1:] if k != "self"}
        object.__setattr__(self, "_config", config)
        return self

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    @abstractmethod
    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        """Decide one step; None leaves the tokens as they are.

        Args:
            tokens: what is there, (B, N, C) features and what is known about them.
            probe: lazy statistics of the block.
            site: where in the backbone, and how much the schedule wants.
        """

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    @property
    def spec(self) -> str:
        """The method and those arguments that differ from their defaults, e.g. "sta:r=64,order=BFB"."""
        parameters = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={_spec_value(value)}"
            for name, value in self._config.items()
            if name in parameters and value != parameters[name].default
        ]
        name = self.method or type(self).__name__
        return f"{name}:{','.join(changed)}" if changed else name

    def with_(self, **changes: Any) -> Self:
        """The same method with other hyper-parameters (learned parameters start anew)."""
        return type(self)(**{**self._config, **changes})

    def steps(self, depth: int) -> dict[int, Step]:
        """Block -> step, without those that leave every token.

        Raises:
            ScheduleError: the schedule does not fit the depth.
        """
        return {step.block: step for step in self.schedule.steps(depth) if not step.is_noop}

    def check(self, geometry: Geometry) -> list[str]:
        """Refuse impossible settings before any compute; return corrections that will be made, as notes.

        Raises:
            ScheduleError: with the numbers.
        """
        n = geometry.grid.patches
        for step in self.schedule.steps(geometry.depth):
            n = step.left(n)
        return []

    def strength_range(self, geometry: Geometry) -> Strength:
        """The range of the strength on a backbone; the default reads it from the schedule's kind.

        Raises:
            ScheduleError: the method declares no strength.
        """
        if not self.strength:
            raise ScheduleError(f"{self.method or type(self).__name__} has no strength to solve for")
        if self.schedule.kind == "keep":
            return Strength(self.strength, 1.0, 1.0 / geometry.grid.patches, whole=False)
        return Strength(self.strength, 0, geometry.grid.patches - 1, whole=True)

    def smaller_input(self, geometry: Geometry) -> SmallerInput | None:
        """A smaller input instead of (or before) fewer tokens; None = the input as it is."""
        return None

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """Multiply-adds of one step per sample as published; None = what the implementation runs is counted.

        Args:
            tokens: tokens entering the step, prefix included.
        """
        return None

    def describe(self, geometry: Geometry) -> list[str]:
        """What ran, where the name alone does not say it (e.g. which score); shown with the result."""
        return []

    def reset(self) -> None:
        """Forget the state between forwards; stateless methods have none."""

    def extra_repr(self) -> str:
        return self.spec


def keep_top(tokens: Tokens, score: Tensor, count: int, *, order: str = "position", groups: int | None = None) -> Keep:
    """Keep the ``count`` patch tokens with the highest score; prefix tokens stay in front; ties go to the earlier.

    Args:
        tokens: (B, N, C) tokens.
        score: (B, N - prefix), higher = kept. NaN ranks lowest.
        count: patch tokens to keep.
        order: "position" or "score" (descending).
        groups: temporal groups that still hold after it.
    """
    ranked = torch.nan_to_num(score.detach(), nan=float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :count]
    if order == "position":
        ranked = ranked.sort(dim=1).values
    return keep_patches(tokens, ranked, groups=groups)


def keep_patches(tokens: Tokens, index: Tensor, *, groups: int | None = None) -> Keep:
    """Keep patch tokens by their index among the patch tokens (B, M), behind all prefix tokens."""
    if tokens.prefix:
        front = torch.arange(tokens.prefix, device=index.device).expand(index.shape[0], tokens.prefix)
        index = torch.cat([front, index + tokens.prefix], dim=1)
    return Keep(index, tokens.count, groups)


def _spec_value(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(_spec_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
