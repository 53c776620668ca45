"""Where a method reduces and how much: one object for every method.

A schedule is resolved against a depth into steps. What one unit of ``drop`` means is the method's: tokens per
sequence for ToMe, tokens per original frame for STA. Blocks are counted from 0 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

PLACES = ("all", "thirds", "quarters", "third", "early")
Shape = str | float
Amount = int | float | Fraction


class StagePlaces(Protocol):
    """Where steps act on a hierarchical backbone; see ``tokred.backbones.geometry.StageSites``."""

    @property
    def entries(self) -> tuple[int, ...]: ...
    @property
    def reduced(self) -> tuple[int, ...]: ...
    @property
    def patches(self) -> Sequence[int]: ...


class ScheduleError(ValueError):
    """A schedule that cannot be carried out on this backbone."""


@dataclass(frozen=True)
class Step:
    """One resolved step.

    Args:
        block: 0-based block.
        index: number of the step, from 0.
        kind: "drop" (so many fewer), "share" (this share of the current tokens fewer, rounded down), "keep" (this share
            of the current tokens) or "tokens" (so many left).
        amount: the number.
    """

    block: int
    index: int
    kind: str
    amount: Amount

    @property
    def is_noop(self) -> bool:
        """Whether the step leaves every token, whatever their number."""
        return (self.kind == "drop" and self.amount == 0) or (self.kind == "keep" and self.amount == 1)

    def left(self, n: int) -> int:
        """Tokens left of n: n - drop, n - int(n * share), ceil(keep * n) in double precision (as EViT's code), or the
        given count.

        Raises:
            ScheduleError: the step would leave none, or more than there are.
        """
        if self.kind == "drop":
            left = n - int(self.amount)
        elif self.kind == "share":
            left = n - int(n * float(self.amount))
        elif self.kind == "keep":
            left = math.ceil(float(self.amount) * n)
        else:
            left = int(self.amount)
        if not 1 <= left <= n:
            allowed = {"drop": f"0..{n - 1}", "share": "(0, 1)", "keep": "(0, 1]", "tokens": f"1..{n}"}[self.kind]
            raise ScheduleError(
                f"{self.kind} = {_plain(self.amount)} at block {self.block} is impossible with {n} tokens: "
                f"allowed is {allowed}"
            )
        return left


@dataclass(frozen=True)
class Schedule:
    """Where and how much. Exactly one of ``drop``, ``keep`` and ``tokens`` is given.

    Args:
        at: "all" blocks, "thirds" (0, L//3, 2L//3), "quarters" (L//4, L//2, 3L//4), "third" (L//3), "early" (the first
            four, or all of fewer), or 0-based blocks.
            On a hierarchical backbone the names mean: every block behind the first stage; for thirds and quarters the
            entry of every stage but the first; for third the first of these.
        drop: tokens dropped or merged per step; a tuple gives each step its own, padded with 0. A fraction below one is
            a share of the current tokens, rounded down. On a hierarchical backbone a single number is that of the first
            step, and scales with the grid that a step acts on.
        keep: share of the current tokens left by a step, in (0, 1]; or one share per step.
        tokens: tokens left after a step; or one count per step.
        shape: how a single ``drop`` develops over the steps: "constant"; "decreasing" (halves each step, STA's
            default); "increasing" (doubles each step); or an inflection f in [-1, 1], linear from r(1-f) to r(1+f)
            truncated as in ToMe's code (-1 falls to 0, +1 rises from 0).
    Raises:
        ScheduleError: out of range, with what is allowed.
    """

    at: str | tuple[int, ...] = "all"
    drop: int | float | tuple[int | float, ...] | None = None
    keep: float | tuple[float, ...] | None = None
    tokens: int | tuple[int, ...] | None = None
    shape: Shape = "constant"

    def __post_init__(self) -> None:
        if isinstance(self.at, list):
            object.__setattr__(self, "at", tuple(self.at))
        if not isinstance(self.at, tuple) and self.at not in PLACES:
            raise ScheduleError(f"at = {self.at!r} is not one of {', '.join(PLACES)} or a tuple of blocks")
        given = [name for name in ("drop", "keep", "tokens") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ScheduleError(f"give exactly one of drop, keep, tokens; given: {given or 'none'}")
        if getattr(self, given[0]) in ((), []):
            raise ScheduleError(f"{given[0]} is an empty list; allowed is at least one entry")
        for value in self._values():
            self._check_value(given[0], value)
        if isinstance(self.shape, str):
            if self.shape not in ("constant", "decreasing", "increasing"):
                raise ScheduleError(
                    f"shape = {self.shape!r} is not constant, decreasing, increasing or an inflection in [-1, 1]"
                )
        elif not -1 <= self.shape <= 1:
            raise ScheduleError(f"shape = {self.shape} is not an inflection in [-1, 1]")
        if self.shape != "constant" and (given[0] != "drop" or isinstance(self.drop, (tuple, list, float))):
            raise ScheduleError(
                f"shape = {self.shape!r} needs a single drop, not {given[0]} = {getattr(self, given[0])}"
            )

    @property
    def kind(self) -> str:
        """Which of drop, keep and tokens is given."""
        return "drop" if self.drop is not None else "keep" if self.keep is not None else "tokens"

    def blocks(self, depth: int, stages: StagePlaces | None = None) -> tuple[int, ...]:
        """The blocks of the steps, in order.

        Args:
            stages: where steps act on a hierarchical backbone.

        Raises:
            ScheduleError: a block outside 0..depth-1, repeated, or not in rising order.
        """
        if isinstance(self.at, str) and stages is not None:
            return {"all": stages.reduced, "third": stages.entries[:1]}.get(self.at, stages.entries)
        if isinstance(self.at, str):
            named = {
                "all": tuple(range(depth)),
                "thirds": (0, depth // 3, (2 * depth) // 3),
                "quarters": (depth // 4, depth // 2, (3 * depth) // 4),
                "third": (depth // 3,),
                "early": tuple(range(min(depth, 4))),
            }
            blocks = named[self.at]
            if len(set(blocks)) != len(blocks):
                raise ScheduleError(
                    f"at = {self.at!r} needs more than {depth} blocks: steps would coincide at {blocks}"
                )
            return blocks
        outside = [b for b in self.at if isinstance(b, bool) or not isinstance(b, int) or not 0 <= b < depth]
        if outside:
            raise ScheduleError(f"at = {self.at}: block {outside[0]} is not in 0..{depth - 1}")
        if list(self.at) != sorted(set(self.at)):
            raise ScheduleError(f"at = {self.at}: blocks must rise and not repeat")
        return self.at

    def steps(self, depth: int, stages: StagePlaces | None = None) -> tuple[Step, ...]:
        """The steps for a backbone of ``depth`` blocks, no-ops included.

        Args:
            stages: where steps act on a hierarchical backbone.
        Raises:
            ScheduleError: more amounts than steps, or see ``blocks``.
        """
        blocks = self.blocks(depth, stages)
        value = getattr(self, self.kind)
        if isinstance(value, (tuple, list)):
            if len(value) > len(blocks):
                raise ScheduleError(f"{self.kind} has {len(value)} entries for {len(blocks)} steps at blocks {blocks}")
            if self.kind == "tokens" and len(value) < len(blocks):
                raise ScheduleError(f"tokens has {len(value)} entries for {len(blocks)} steps: give one per step")
            rest = 0 if self.kind == "drop" else 1.0
            amounts: list[Amount] = [*value, *[rest] * (len(blocks) - len(value))]
        elif self.kind == "drop" and not isinstance(value, float):
            amounts = self._shaped(value, len(blocks))
            if stages is not None:
                grids = [stages.patches[b] for b in blocks]
                amounts = [Fraction(a) * Fraction(n, grids[0]) for a, n in zip(amounts, grids, strict=True)]
        else:
            amounts = [value] * len(blocks)
        return tuple(
            Step(b, i, "share" if self.kind == "drop" and isinstance(a, float) else self.kind, a)
            for i, (b, a) in enumerate(zip(blocks, amounts, strict=True))
        )

    def _shaped(self, r: int, count: int) -> list[Amount]:
        if self.shape == "constant":
            return [r] * count
        if self.shape == "decreasing":
            return [Fraction(r, 2**i) for i in range(count)]
        if self.shape == "increasing":
            return [r * 2**i for i in range(count)]
        low = int(r * (1 - float(self.shape)))
        high = 2 * r - low
        rise = (high - low) / max(count - 1, 1)
        return [int(low + rise * i) for i in range(count)]

    def _values(self) -> tuple[int | float, ...]:
        value = getattr(self, self.kind)
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)

    @staticmethod
    def _check_value(kind: str, value: int | float) -> None:
        if kind == "keep":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
                raise ScheduleError(f"keep = {_plain(value)} is not in (0, 1]")
            return
        if kind == "drop" and isinstance(value, float) and 0 < value < 1:
            return
        least = 0 if kind == "drop" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            share = ", or a share in (0, 1)" if kind == "drop" and isinstance(value, float) else ""
            raise ScheduleError(f"{kind} = {value} is not a whole number of at least {least}{share}")


def _plain(amount: Amount) -> str:
    if isinstance(amount, float) and amount.is_integer():
        return f"{amount:g}"
    return str(float(amount)) if isinstance(amount, Fraction) and amount.denominator > 1 else str(amount)
