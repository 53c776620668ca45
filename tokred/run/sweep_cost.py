"""What is left of a sweep, and how long it may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tokred.run.store import CellStore
from tokred.run.sweep_plan import PlannedCell, SweepPlan


@dataclass(frozen=True)
class Cost:
    """The cells of a sweep by what is left to do.

    Args:
        kept, failed, todo: cells that are finished, that failed and are not tried again, that will be computed.
        clips: of those to compute, all views; gmac: 1e9 multiply-adds of all of them.
        at_most: some counts depend on the content, and the unreduced model's are taken for them.
        seconds: of one worker, at the rate of finished cells; None where there are none to tell it.
    """

    kept: tuple[str, ...]
    failed: tuple[str, ...]
    todo: tuple[str, ...]
    clips: int
    gmac: float
    at_most: bool
    seconds: float | None


def clips_of(planned: PlannedCell) -> int:
    """Views of all items, unusable ones included."""
    assert planned.group is not None
    return planned.group.items * math.prod(planned.group.clips.views)


def gmac_of(planned: PlannedCell) -> float:
    """1e9 multiply-adds of all clips of a cell; where they depend on the content, of the unreduced model."""
    assert planned.group is not None
    return clips_of(planned) * (planned.group.gmac if planned.report is None else planned.report.gmac)


def estimate(
    plan: SweepPlan,
    store: CellStore,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
) -> Cost:
    """What a run of the plan will do, and its cost.

    Args:
        fresh: finished cells are computed again; retry_failed: those that failed too.
    """
    wanted = plan.wanted
    kept, failed, todo = [], [], []
    records: dict[str, dict[str, Any]] = {}
    for id_ in wanted:
        found = store.read(id_)
        if found is not None:
            records[id_] = found[0]
        if found is not None and not fresh:
            kept.append(id_)
        elif found is None and not (retry_failed or fresh) and store.failure(id_) is not None:
            failed.append(id_)
        else:
            todo.append(id_)
    cells = [wanted[id_] for id_ in todo]
    rates = _rates(wanted, records)
    measures = {planned.cell.measure for planned in cells if planned.cell is not None}
    seconds = None
    if measures <= rates.keys():
        seconds = sum(gmac_of(p) * rates[p.cell.measure] for p in cells if p.cell is not None)
    return Cost(
        tuple(kept),
        tuple(failed),
        tuple(todo),
        clips=sum(map(clips_of, cells)),
        gmac=sum(map(gmac_of, cells)),
        at_most=any(planned.report is None for planned in cells),
        seconds=seconds,
    )


def _rates(wanted: dict[str, PlannedCell], records: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Measure -> seconds per 1e9 multiply-adds of the finished cells."""
    spent: dict[str, list[float]] = {}
    for id_, record in records.items():
        planned = wanted[id_]
        seconds = record.get("seconds")
        if planned.cell is not None and isinstance(seconds, (int, float)) and gmac_of(planned) > 0:
            total = spent.setdefault(planned.cell.measure, [0.0, 0.0])
            total[0] += seconds
            total[1] += gmac_of(planned)
    return {measure: seconds / gmac for measure, (seconds, gmac) in spent.items()}
