"""TokenReducer: what a method is. It decides; it never touches a backbone."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from tokred.backbones.geometry import Geometry
from tokred.backbones.parts import BlockParts
from tokred.capabilities import SITES, Capabilities, Promise, Site, SmallerInput, Strength
from tokred.probe import Probe
from tokred.ranking import ranking
from tokred.reduction import Keep, Reduction
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.settings import check_settings
from tokred.spec_text import spec_value
from tokred.tokens import Tokens

__all__ = [
    "SITES",
    "STATUSES",
    "Capabilities",
    "Promise",
    "Site",
    "SmallerInput",
    "Strength",
    "TokenReducer",
    "keep_patches",
    "keep_top",
]


STATUSES = ("official code", "published number", "baseline", "not verified")
"""What a method was verified against."""


class TokenReducer(nn.Module, ABC):
    """Base of all methods: hyper-parameters, sites, a schedule and ``reduce``.

    A subclass writes a constructor with keyword hyper-parameters that calls ``super().__init__(schedule)``, sets
    ``site`` and ``capabilities``, and implements ``reduce``. Learned methods add sub-modules as usual.

    Attributes:
        site: where every step of the schedule acts, one of ``SITES``.
        capabilities: see ``Capabilities``; an instance may narrow it in its constructor.
        evaluates: whether it runs the blocks at which it has steps itself, see ``evaluate``.
        proportional: whether later attention adds log(mass) to the logits (skipped while all masses are one).
        pool: on mean-pooling hosts, "mean" over tokens or "mass"-weighted mean.
        strength: name of the constructor argument that budgets solve for ("" = none).
        status: how far it was checked, one of ``STATUSES`` (several joined by "; "); shown by ``tokred list``.
        published_macs: why ``macs`` says other multiply-adds than the steps run; "" = it says what they run.
        method: the name it is registered under; origin: "module:Class" or "FILE.py:Class" that it was built from,
            which finds it again in any process. None of the three is inherited: a subclass is another method.
    """

    site: ClassVar[str] = "after_block"
    strength: ClassVar[str] = ""
    status: ClassVar[str] = "not verified"
    published_macs: ClassVar[str] = ""
    method: ClassVar[str] = ""
    origin: ClassVar[str] = ""
    evaluates: ClassVar[bool] = False
    capabilities: Capabilities = Capabilities()
    proportional: bool = False
    pool: str = "mean"
    _config: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("method", "origin"):
            if name not in cls.__dict__:
                setattr(cls, name, "")
        if "status" not in cls.__dict__:
            cls.status = "not verified"
        unknown = [word for word in cls.status.split("; ") if word not in STATUSES]
        if unknown:
            allowed = ", ".join(STATUSES)
            raise TypeError(f"{cls.__name__}.status = {cls.status!r}: allowed are {allowed}, joined by '; '")

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
        # Copied: a list that its owner goes on writing on is no setting.
        given = list(bound.arguments.items())[1:]
        config = {k: copy.deepcopy(v) if isinstance(v, (list, dict, set)) else v for k, v in given}
        check_settings(cls.__init__, config)
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

    def evaluate(self, parts: BlockParts, tokens: Tokens, site: Site) -> Tensor:
        """Run a whole block in place of the host's own code, for methods that compute some tokens and reuse others.

        Asked for at every block where the method has a step, if it sets ``evaluates``; ``reduce`` is asked before.

        Args:
            parts: the block as operations on each token alone; tokens: those entering it, (B, N, C).
        Returns:
            (B, N, C) features leaving the block.
        """
        raise ScheduleError(f"{self.spec} does not run blocks itself (evaluates = {self.evaluates})")

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(self._config)

    @property
    def spec(self) -> str:
        """The method and those arguments that differ from their defaults, e.g. "sta:r=64,order=BFB"."""
        parameters = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={spec_value(value)}"
            for name, value in self._config.items()
            if name in parameters and value != parameters[name].default
        ]
        name = self.origin or self.method or type(self).__name__
        return f"{name}:{','.join(changed)}" if changed else name

    def with_(self, **changes: Any) -> Self:
        """The same method with other hyper-parameters (learned parameters start anew)."""
        return type(self)(**{**self._config, **changes})

    def steps(self, geometry: Geometry) -> dict[int, Step]:
        """Block -> step on a backbone, without those that leave every token.

        Raises:
            ScheduleError: the schedule does not fit the backbone.
        """
        steps = self.schedule.steps(geometry.depth, geometry.sites(self.site))
        return {step.block: step for step in steps if not step.is_noop}

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        """What a step leaves of ``count`` patch tokens, from numbers alone; ``reduce`` must keep it.

        By default the amount is of all patch tokens, or of each temporal group where the method needs and keeps
        frames.

        Args:
            groups: equal temporal groups that the tokens are in, None = none.
        Raises:
            ScheduleError: impossible settings, with the numbers.
        """
        notes: tuple[str, ...] = ()
        if isinstance(step.amount, Fraction) and step.amount.denominator > 1:
            notes = (f"block {step.block}: {step.kind} = {float(step.amount):g} rounded down to {int(step.amount)}",)
        if self.capabilities.keeps_frames and "frames" in self.capabilities.needs and groups is not None:
            return Promise(groups * step.left(count // groups), groups, notes)
        left = step.left(count)
        return Promise(left, groups if left == count or self.capabilities.keeps_frames else None, notes)

    def check(self, geometry: Geometry) -> list[str]:
        """Refuse impossible settings before any compute; return corrections that will be made, as notes.

        Raises:
            ScheduleError: with the numbers.
        """
        return self._walk((self,), geometry)

    @staticmethod
    def _walk(parts: tuple[TokenReducer, ...], geometry: Geometry) -> list[str]:
        """The promises of all parts in the order in which their steps will run; their notes."""
        shrunk = [s for part in parts if (s := part.smaller_input(geometry)) is not None]
        grid = shrunk[0].grid if shrunk else geometry.grid
        seen = replace(geometry, grid=grid)
        count: int = grid.patches
        groups: int | None = grid.t
        notes: list[str] = []
        steps = [part.steps(geometry) for part in parts]
        for block in range(geometry.depth):
            for site in SITES:
                if site == "after_block" and geometry.ends_stage(block):
                    # Patch merging runs on the whole grid: what earlier steps left out is filled in again.
                    grid = grid.halved
                    seen = replace(seen, grid=grid)
                    count, groups = grid.patches, grid.t
                for part, own in zip(parts, steps, strict=True):
                    if part.site == site and block in own:
                        count, groups, more, cut = part.promise(own[block], count, groups, seen)
                        notes += more
                        if cut is not None:
                            grid = cut
                            seen = replace(seen, grid=grid)
        return notes

    def strength_range(self, geometry: Geometry) -> Strength:
        """The range of the strength on a backbone; the default reads it from the schedule's kind.

        Raises:
            ScheduleError: the method declares no strength.
        """
        if not self.strength or self.schedule.kind == "tokens":
            raise ScheduleError(f"{self.spec} has no strength to solve for")
        if self.schedule.kind == "keep":
            return Strength(self.strength, 1.0, 1.0 / geometry.reduced_grid.patches, whole=False)
        return Strength(self.strength, 0, geometry.reduced_grid.patches - 1, whole=True)

    def smaller_input(self, geometry: Geometry) -> SmallerInput | None:
        """A smaller input instead of (or before) fewer tokens; None = the input as it is."""
        return None

    def macs(self, tokens: int, geometry: Geometry, step: Step) -> int | None:
        """Multiply-adds of one step per sample as published; None = what the implementation runs is counted.

        Args:
            tokens: tokens entering the step, prefix included.
        """
        return None

    def reused(self, geometry: Geometry, counts: Sequence[int]) -> int:
        """Multiply-adds of one clip's blocks that are not computed because results of an earlier step are taken over.

        Args:
            counts: tokens in the attention of each block.
        """
        return 0

    def describe(self, geometry: Geometry) -> list[str]:
        """What ran, where the name alone does not say it (e.g. which score); shown with the result."""
        return []

    def prepare(self, geometry: Geometry, host: nn.Module | None = None) -> None:
        """Get ready for a backbone before any compute, e.g. build parameters of its width; see ``tokred.learned``.

        Args:
            geometry: sizes of the backbone; host: the model, None where only sizes are known.
        """

    def reset(self) -> None:
        """Forget the state between forwards; stateless methods have none."""

    def extra_repr(self) -> str:
        return self.spec


def keep_top(tokens: Tokens, score: Tensor, count: int, *, order: str = "position", groups: int | None = None) -> Keep:
    """Keep the patch tokens with the highest score; prefix tokens stay in front; ties go to the earlier.

    Args:
        tokens: (B, N, C) tokens.
        score: (B, N - prefix), higher = kept; or (B, T, S) by temporal group. NaN ranks highest: it
            shows in the logits, where a token that is dropped would hide it.
        count: patch tokens to keep, of all or of each group.
        order: "position" or "score" (descending).
        groups: temporal groups that still hold after it; those of a (B, T, S) score hold by themselves.
    """
    ranks = ranking(ranked_first(score), descending=True)
    ranked = ranks[..., :count]
    if order == "position":
        ranked = ranked.sort(dim=-1).values
    if score.ndim == 3:
        groups, size = score.shape[1:]
        start = torch.arange(groups, device=score.device).mul_(size)[:, None]
        ranked = (ranked + start).flatten(1)
    return keep_patches(tokens, ranked, groups=groups)


def ranked_first(score: Tensor) -> Tensor:
    """Scores to sort by, with NaN where infinity is."""
    inf = float("inf")
    return torch.nan_to_num(score.detach(), nan=inf, posinf=inf, neginf=-inf)


def keep_patches(tokens: Tokens, index: Tensor, *, groups: int | None = None) -> Keep:
    """Keep patch tokens by their index among the patch tokens (B, M), behind all prefix tokens."""
    if tokens.prefix:
        front = torch.arange(tokens.prefix, device=index.device).expand(index.shape[0], tokens.prefix)
        index = torch.cat([front, index + tokens.prefix], dim=1)
    return Keep(index, tokens.count, groups)
