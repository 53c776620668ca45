"""What was compared with a golden file, how close it was, and what differs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import torch
from torch import Tensor

RELATIVE = 1e-5
"""Tolerance where the method names none, relative to the largest magnitude of the tensor."""


@dataclass
class Ledger:
    """Comparisons of one file.

    Attributes:
        scope: put before what differs, e.g. the name of the run.
        equal, total: decisions (indices, counts) that agree, and all of them.
        error, tolerance: those of the value that came closest to its tolerance, or went furthest over it.
    """

    equal: int = 0
    total: int = 0
    error: float | None = None
    tolerance: float | None = None
    compared: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    float64: float | None = None
    scope: str = ""

    def fail(self, text: str) -> None:
        """Write down what differs, in the current scope (the run of a file that holds several)."""
        self.failures.append(f"{self.scope}{text}")

    def decision(self, name: str, ours: Tensor, theirs: Tensor) -> None:
        """Positions and counts: every entry must be equal."""
        self.compared.append(name)
        self.total += theirs.numel()
        if ours.shape != theirs.shape:
            self.fail(f"{name} has shape {tuple(ours.shape)}, not {tuple(theirs.shape)}")
            return
        same = int((ours == theirs).sum())
        self.equal += same
        if same < theirs.numel():
            text = f"{name}: {theirs.numel() - same} of {theirs.numel()} decisions differ"
            if theirs.ndim and torch.equal(ours.sort(-1).values, theirs.sort(-1).values):
                text += " (in order only)"
            self.fail(text)

    def counts(self, name: str, ours: object, theirs: object) -> None:
        """A list of counts, as one decision."""
        self.compared.append(name)
        self.total += 1
        if ours == theirs:
            self.equal += 1
        else:
            self.fail(f"{name} = {ours}, not {theirs}")

    def value(
        self, name: str, ours: Tensor, theirs: Tensor, *, relative: float = RELATIVE, absolute: float | None = None
    ) -> None:
        """Features: the largest difference must be within the tolerance.

        Args:
            relative: tolerance relative to the largest magnitude of ``theirs``.
            absolute: absolute tolerance, instead of the relative one.
        """
        error = self._difference(name, ours, theirs)
        if error is None:
            return
        if absolute is None:
            finite = theirs[theirs.isfinite()]
            largest = float(finite.abs().max()) if finite.numel() else 0.0
            error /= largest or 1.0
        self._enter(name, error, relative if absolute is None else absolute)

    def fused(self, name: str, ours: Tensor, theirs: Tensor, tolerance: float) -> None:
        """A weighted sum: within the tolerance, absolute up to magnitude one and relative above."""
        error = self._difference(name, ours, theirs)
        if error is not None:
            self._enter(name, error / max(1.0, float(theirs.abs().max())), tolerance)

    def bits(self, name: str, ours: Tensor, theirs: Tensor) -> None:
        """Features that are moved, not computed: they must be the same bits."""
        error = self._difference(name, ours, theirs)
        if error is not None:
            self._enter(name, error, 0.0)

    def logits64(self, name: str, ours: Tensor, theirs: Tensor, absolute: float) -> None:
        """Logits against those that the reference computed in float64."""
        error = self._difference(name, ours.double(), theirs)
        if error is not None:
            self.float64 = max(self.float64 or 0.0, error)
            self._enter(name, error, absolute)

    def detail(self) -> str:
        """One line: what differs, or what was compared."""
        if self.failures:
            more = len(self.failures) - 3
            return "; ".join(self.failures[:3]) + (f"; and {more} more" if more > 0 else "")
        parts = [_summary(self.compared)]
        if self.float64 is not None:
            parts.append(f"float64 logits differ by {self.float64:.1e}")
        return "; ".join([*parts, *self.notes])

    def _difference(self, name: str, ours: Tensor, theirs: Tensor) -> float | None:
        self.compared.append(name)
        if ours.shape != theirs.shape:
            self.fail(f"{name} has shape {tuple(ours.shape)}, not {tuple(theirs.shape)}")
            return None
        ours, theirs = ours.detach(), theirs.detach()
        same = (ours == theirs) | (ours.isnan() & theirs.isnan())
        gap = torch.where(same, 0.0, (ours - theirs).abs().double())
        # Not a number on one side only is as wrong as can be.
        return float(gap.nan_to_num(nan=float("inf")).max()) if gap.numel() else 0.0

    def _enter(self, name: str, error: float, tolerance: float) -> None:
        worst = None if self.error is None or self.tolerance is None else _ratio(self.error, self.tolerance)
        if worst is None or _ratio(error, tolerance) > worst:
            self.error, self.tolerance = error, tolerance
        if not error <= tolerance:
            self.fail(f"{name} differs by {error:.2g} (allowed {tolerance:.0e})")


def _ratio(error: float, tolerance: float) -> float:
    return error / tolerance if tolerance else float("inf") if error else -1.0


def _summary(names: list[str]) -> str:
    """Names with their numbers folded: step1.kept, step2.kept -> step#.kept x2."""
    folded: dict[str, int] = {}
    for name in names:
        key = re.sub(r"(?<!float)(?<!\d)\d+", "#", name)
        folded[key] = folded.get(key, 0) + 1
    return ", ".join(key if count == 1 else f"{key} x{count}" for key, count in folded.items())
