"""Find the setting of a method that takes a given share of the unreduced model's measured time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokred.attach import attach
from tokred.backbones.geometry import Geometry
from tokred.budget import BudgetError, Solution, macs_of
from tokred.measure.flops import count, unreduced_plan
from tokred.measure.latency import interleave
from tokred.reducer import TokenReducer
from tokred.registry import build
from tokred.run.store import write_atomic

STEPS = 7
"""Settings that are measured, each halving the range."""

NEAR = 0.05
"""Times are noisy: a solution further than this share from its budget is noted."""

FOUND = "timed.json"


@dataclass
class TimedBudget:
    """Solves strengths by the clock, on one machine, backbone and batch.

    Args:
        host: in eval mode on its device; geometry: its sizes; clips: a batch as the host takes it.
        device: of the clock; seconds: of each measurement, in which both models take turns.
        folder: where solved settings are kept, so that a run that goes on uses them again; None = nowhere.
    """

    host: nn.Module
    geometry: Geometry
    clips: Tensor
    device: str = "cpu"
    seconds: float = 1.5
    folder: Path | None = None
    ratio: Callable[[TokenReducer], float] | None = None
    _kept: dict[str, Any] = field(default_factory=dict)

    def __call__(self, reducer: TokenReducer, geometry: Geometry, share: float) -> Solution:
        """The strength whose measured time is nearest to ``share`` of the unreduced model's.

        Raises:
            BudgetError: even the strongest setting takes clearly longer.
            ScheduleError: no strength is declared.
        """
        key = f"{reducer.spec} at {share:g} of the time"
        kept = self._read().get(key)
        if kept is None:
            kept = self._search(reducer, share)
            self._write(key, kept)
        chosen = build(kept["spec"])
        report = macs_of(chosen, geometry)
        full = count(geometry, unreduced_plan(geometry)).macs
        notes = [f"solved by the clock: {kept['ratio']:.0%} of the unreduced time when it was searched"]
        if abs(kept["ratio"] - share) > NEAR:
            notes.append(f"nearest setting to {share:.0%} of the time takes {kept['ratio']:.0%}")
        return Solution(chosen, report, report.macs / full, tuple(notes))

    def _search(self, reducer: TokenReducer, share: float) -> dict[str, Any]:
        strength = reducer.strength_range(self.geometry)
        weak, strong = float(strength.weakest), float(strength.strongest)
        tried: dict[float, float] = {}

        def ratio(value: float) -> float:
            value = round(value) if strength.whole else round(value, 4)
            if value not in tried:
                candidate = reducer.with_(**{strength.name: int(value) if strength.whole else value})
                tried[value] = (self.ratio or self._measured)(candidate)
            return tried[value]

        if ratio(strong) > share + NEAR:
            raise BudgetError(
                f"{reducer.spec} cannot go down to {share:.0%} of the time: its strongest setting "
                f"({strength.name} = {strong:g}) takes {ratio(strong):.0%} here"
            )
        for _ in range(STEPS):
            middle = (weak + strong) / 2
            weak, strong = (middle, strong) if ratio(middle) > share else (weak, middle)
        best = min(tried, key=lambda value: abs(tried[value] - share))
        chosen = reducer.with_(**{strength.name: int(best) if strength.whole else best})
        return {"spec": chosen.spec, "ratio": tried[best]}

    def _measured(self, reducer: TokenReducer) -> float:
        """Time of the reduced model as a share of the unreduced one's, both in one interleaved run."""
        models = {"none": attach(self.host, build("none")), "reduced": attach(self.host, reducer)}

        def call(model: Any) -> Callable[[], object]:
            def forward() -> object:
                model.reset()
                return model(self.clips)

            return torch.inference_mode()(forward)

        run = interleave(
            {name: call(model) for name, model in models.items()},
            device=self.device,
            max_seconds=self.seconds,
            max_rounds=15,
            warmup=1,
        )
        return 1.0 / run.speedup("reduced").value

    def _read(self) -> dict[str, Any]:
        if not self._kept and self.folder is not None and (self.folder / FOUND).exists():
            try:
                self._kept = json.loads((self.folder / FOUND).read_text(encoding="utf-8"))
            except ValueError:
                self._kept = {}
        return self._kept

    def _write(self, key: str, found: dict[str, Any]) -> None:
        self._kept[key] = found
        if self.folder is not None:
            write_atomic(self.folder / FOUND, json.dumps(self._kept, indent=1).encode())
