"""From reducers and budgets to the rows of a comparison, before anything is run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from torch import nn

from tokred.attach import Attached, attach
from tokred.backbones.geometry import Geometry
from tokred.budget import BudgetError, Solution, solve
from tokred.dry import dry_run
from tokred.learned import untrained
from tokred.measure.flops import MacReport, count
from tokred.measure.threads import torch_threads
from tokred.reducer import TokenReducer
from tokred.registry import build, list_methods

UNREDUCED = "none"
Solver = Callable[[TokenReducer, Geometry, float], Solution]


@dataclass
class Row:
    """One line of a comparison.

    Args:
        method: registered name; spec: full settings; budget: share it was solved for, None = as given.
        model: the attached host, None where it was refused; report: multiply-adds.
        reason: why it was refused or failed; notes: what must be shown with it.
        learned: whether the method has parameters; trained: whether they are trained, None where there are none.
    """

    method: str
    spec: str
    budget: float | None = None
    model: Attached | None = None
    report: MacReport | None = None
    reason: str | None = None
    notes: list[str] = field(default_factory=list)
    learned: bool = False
    trained: bool | None = None


def plan_rows(
    host: nn.Module,
    geometry: Geometry,
    specs: Sequence[str] | None,
    budgets: Sequence[float] | None,
    allow_untrained: bool = False,
    solver: Solver = solve,
) -> list[Row]:
    """All rows of a comparison, the unreduced model first.

    Args:
        specs: reducers as strings; None = every registered method.
        budgets: shares of the unreduced cost that each reducer is solved for. None: those that come with a strength
            run as given, the others are solved for 75, 50 and 35 %, on hierarchical backbones for 90, 80 and 70 %.
        allow_untrained: run learned methods with random parameters too, noted; else they are one refused row each.
        solver: finds the strength for a share, of the multiply-adds unless it says otherwise.
    Raises:
        RegistryError: a spec that cannot be built.
    """
    rows = [given_row(host, geometry, build(UNREDUCED))]
    names = [name for name in list_methods() if name != UNREDUCED] if specs is None else specs
    for spec in names:
        reducer = build(spec)
        if reducer.method == UNREDUCED:
            continue
        refused = None if allow_untrained else untrained_row(host, geometry, reducer)
        if refused is not None:
            rows.append(refused)
        elif budgets is None and is_set(reducer):
            rows.append(given_row(host, geometry, reducer))
        else:
            shares = budgets or default_budgets(geometry)
            rows += [solved_row(host, geometry, reducer, share, solver) for share in shares]
    return rows


DEFAULT_BUDGETS = (0.75, 0.5, 0.35)
STAGED_BUDGETS = (0.9, 0.8, 0.7)
"""On hierarchical backbones, whose first stage no method shortens: less can be saved."""


def default_budgets(geometry: Geometry) -> tuple[float, ...]:
    """Shares of the unreduced multiply-adds that a comparison solves for where none are given."""
    return STAGED_BUDGETS if geometry.stages else DEFAULT_BUDGETS


def is_set(reducer: TokenReducer) -> bool:
    """Whether the user gave a strength, or there is none to solve for."""
    if not reducer.strength:
        return True
    parameter = inspect.signature(type(reducer).__init__).parameters.get(reducer.strength)
    if parameter is None:
        return False
    return reducer.config.get(reducer.strength) != parameter.default or reducer.schedule.kind == "tokens"


@torch_threads(1)  # on the small tensors of a dry run more threads cost time, on a busy machine thirty times as much
def given_row(host: nn.Module, geometry: Geometry, reducer: TokenReducer) -> Row:
    """A row with its settings as given; refused, with the reason, where the host cannot have the reducer."""
    row = Row(reducer.method or type(reducer).__name__, reducer.spec, learned=reducer.capabilities.trainable)
    try:
        row.model = attach(host, reducer)
        row.trained = not untrained(reducer) if row.learned else None
        if reducer.capabilities.static_counts:
            row.report = count(geometry, dry_run(reducer, geometry))
        row.notes = _joined(row.model.notes)
    except ValueError as error:
        row.reason = str(error)
    return row


def untrained_row(
    host: nn.Module, geometry: Geometry, reducer: TokenReducer, permission: str = "--allow-untrained"
) -> Row | None:
    """A refused row where learned parameters would be random, or cannot be had; None = nothing to refuse.

    Args:
        permission: how the user says that random parameters are meant.
    """
    if not reducer.capabilities.trainable:
        return None
    row = Row(reducer.method or type(reducer).__name__, reducer.spec, learned=True, trained=False)
    try:
        reducer.prepare(geometry, host)
    except ValueError as error:
        row.reason, row.trained = str(error), None  # refused for another reason than its parameters
        return row
    random = untrained(reducer)
    if not random:
        return None
    row.reason = (
        f"{' and '.join(random)} has no trained weights for this backbone: train it (tokred train), give "
        f"weights=FILE.safetensors, or compare random parameters with {permission}"
    )
    return row


def solved_row(host: nn.Module, geometry: Geometry, reducer: TokenReducer, share: float, solver: Solver = solve) -> Row:
    """A row whose strength is solved for a share of the unreduced multiply-adds; refused where none comes near."""
    name = reducer.method or type(reducer).__name__
    try:
        with torch_threads(1) if solver is solve else nullcontext():
            solution = solver(reducer, geometry, share)
    except (BudgetError, ValueError) as error:
        return Row(name, reducer.spec, share, reason=str(error))
    row = given_row(host, geometry, solution.reducer)
    row.budget = share
    row.notes += solution.notes
    return row


def _joined(notes: Sequence[str]) -> list[str]:
    """Notes with those about single blocks joined to one."""
    blocks = [note for note in notes if note.startswith("block ")]
    return (["; ".join(blocks)] if blocks else []) + [note for note in notes if note not in blocks]
