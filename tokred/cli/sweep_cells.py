"""The cells of a sweep before they are computed: what ``tokred sweep --dry-run`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokred.run.sweep import Sweep
    from tokred.run.sweep_cost import Cost
    from tokred.run.sweep_plan import PlannedCell


def cost_lines(sweep: Sweep, cost: Cost, workers: int) -> list[str]:
    """The cells of a sweep and what is left to do, for people."""
    rows = [_row(planned, _state(planned, cost)) for planned in (*sweep.plan.baselines, *sweep.plan.cells)]
    head = ("cell", "state", "GMAC", "share", "full GMAC", "reducer", "point")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    table = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in [head, *rows]
    ]
    notes = [f"note: {note}" for note in sweep.plan.notes]
    kinds = [(len(cost.kept), "kept"), (len(cost.failed), "failed before"), (len(cost.todo), "to compute")]
    counted = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
    work = f"{cost.clips} clips, {'at most ' if cost.at_most else ''}{cost.gmac / 1e3:.3g} TMAC"
    if _is_open(sweep):
        work = "how many clips is not known before the data is there"
    total = len(sweep.plan.wanted)
    needs = [f"needs: {' '.join(sweep.settled.needs.split())}"] if sweep.settled.needs else []
    return [*table, *notes, *needs, f"{total} cells: {counted}; {work}; {_duration(cost, workers)}"]


def _row(planned: PlannedCell, state: str) -> tuple[str, ...]:
    if planned.cell is None:
        return ("-", f"left out: {planned.point.excluded}", "", "", "", "", _point(planned))
    full = planned.full
    assert planned.group is not None
    measure = "" if planned.cell.measure == "predict" else f" [{planned.cell.measure}]"
    return (
        "?" if planned.group.absent else planned.id or "",
        state,
        "?" if planned.report is None else f"{planned.report.gmac:.4g}",
        "?" if planned.share is None else f"{planned.share:.1%}",
        "" if full is None else "?" if full.gmac is None else f"{full.gmac:.2f}",
        planned.cell.reducer + measure,
        _point(planned),
    )


def _is_open(sweep: Sweep) -> bool:
    """Whether it cannot be said how many clips there are."""
    return any(planned.group is not None and not planned.group.items for planned in sweep.plan.wanted.values())


def _point(planned: PlannedCell) -> str:
    return " ".join(f"{key}={value}" for key, value in planned.point.values.items()) or "shared unreduced model"


def _state(planned: PlannedCell, cost: Cost) -> str:
    if planned.id in cost.todo:
        return "to compute"
    return "kept" if planned.id in cost.kept else "failed"


def _duration(cost: Cost, workers: int) -> str:
    if not cost.todo:
        return "nothing is left to do"
    if cost.seconds is None:
        return "how long it takes is not known before a cell is finished"
    minutes = cost.seconds / workers / 60
    several = f" with {workers} workers" if workers > 1 else ""
    return f"about {minutes:.1f} min{several}, as fast as the cells that are finished"


def cost_values(sweep: Sweep, cost: Cost) -> dict[str, Any]:
    """The same for programs."""
    cells = []
    for planned in (*sweep.plan.baselines, *sweep.plan.cells):
        full = planned.full
        cells.append(
            {
                "cell": None if planned.group is not None and planned.group.absent else planned.id,
                "state": "excluded" if planned.cell is None else _state(planned, cost),
                "reason": planned.point.excluded,
                "point": planned.point.values,
                "reducer": None if planned.cell is None else planned.cell.reducer,
                "measure": None if planned.cell is None else planned.cell.measure,
                "gmac": None if planned.report is None else planned.report.gmac,
                "gmac_share": planned.share,
                "full_gmac": None if full is None else full.gmac,
                "full_reason": None if full is None else full.reason,
                "notes": list(planned.notes),
            }
        )
    return {
        "name": sweep.spec.name,
        "profile": sweep.settled.profile,
        "cells": cells,
        "kept": len(cost.kept),
        "failed": len(cost.failed),
        "todo": len(cost.todo),
        "clips": None if _is_open(sweep) else cost.clips,
        "gmac": None if _is_open(sweep) else cost.gmac,
        "seconds": cost.seconds,
        "notes": list(sweep.plan.notes),
        "needs": sweep.settled.needs,
    }
