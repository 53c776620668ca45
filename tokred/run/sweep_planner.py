"""From a sweep to its planned cells: every setting checked on its host, nothing computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokred.measure.threads import torch_threads
from tokred.run.cell import Cell, batch_for
from tokred.run.clips import ClipSettings
from tokred.run.grid import SEED, Point, expand, length, setting
from tokred.run.spec_file import SpecError
from tokred.run.sweep_check import Checks, clip_settings
from tokred.run.sweep_file import Draft
from tokred.run.sweep_hosts import Checked, Hosts
from tokred.run.sweep_names import unknown_names
from tokred.run.sweep_plan import FullCost, Group, PlannedCell, SweepPlan
from tokred.run.sweep_spec import BaseSpec, Profile, Settled, SweepSpec

FULL = "full"


def plan_draft(
    draft: Draft, profile: str | None = None, *, device: str = "cpu", dry: bool = False
) -> tuple[SweepSpec, Settled, SweepPlan]:
    """A draft with its cells planned, see ``plan_sweep``.

    Raises:
        SpecError: everything that is wrong with the file and with its cells.
    """
    problems = list(draft.problems)
    if draft.spec is not None:
        try:
            settled, plan = draft.spec.settled(profile), plan_sweep(draft.spec, profile, device=device, dry=dry)
            if not problems:
                return draft.spec, settled, plan
        except SpecError as error:
            problems += error.problems
    raise SpecError(draft.origin, list(dict.fromkeys(problems)))


@torch_threads(1)  # as for the rows of a comparison
def plan_sweep(spec: SweepSpec, profile: str | None = None, *, device: str = "cpu", dry: bool = False) -> SweepPlan:
    """All cells of a sweep, with their ids and costs.

    Args:
        profile: by default "nano", or the file itself where it has no profiles; device: where the cells will run.
        dry: nothing will be computed: weights and clips that the profile ``needs`` need not be there, which is noted.
    Raises:
        SpecError: everything that cannot be run, each with the setting that is to blame.
    """
    settled = spec.settled(profile)
    planner = _Planner(spec, settled, Hosts(), device)
    try:
        points = expand(settled)
    except ValueError as error:
        where = f"profiles.{settled.profile}" if settled.profile else "axes"
        raise SpecError(spec.name, [f"{where}: {error}", *unknown_names(spec)]) from None
    full, notes = planner.full_points()
    cells: dict[int, list[PlannedCell]] = {}
    # Points of one host after another: few hosts are in memory at a time.
    for index in sorted(range(len(points)), key=lambda at: planner.host_of(points[at])):
        point = points[index]
        if point.excluded is not None:
            cells[index] = [PlannedCell(point)]
            continue
        try:
            cells[index] = planner.cells(point, full[index // len(settled.seeds)] if full else None)
        except ValueError as error:
            if planner.absent is not None:
                raise SpecError(spec.name, [f"base: {error}"]) from None
            planner.absent = planner.refuse_or_note(points, str(error), dry=dry)
            cells[index] = planner.cells(point, full[index // len(settled.seeds)] if full else None)
    ordered = tuple(cell for index in sorted(cells) for cell in cells[index])
    notes += [f"not there: {line}" for line in planner.absent or ()]
    return SweepPlan(settled.profile, ordered, planner.baselines(ordered), tuple(notes))


class _Planner:
    def __init__(self, spec: SweepSpec, settled: Settled, hosts: Hosts, device: str) -> None:
        self.spec, self.settled, self.hosts, self.device = spec, settled, hosts, device
        self.checks = Checks(settled, hosts)
        self.absent: tuple[str, ...] | None = None

    def refuse_or_note(self, points: Sequence[Point], reason: str, *, dry: bool) -> tuple[str, ...]:
        """The files that are not there, where nothing else is wrong and a dry run can do without.

        Args:
            reason: why one of the points cannot be run.
        Raises:
            SpecError: everything that is wrong with the points.
        """
        wrong = self.checks.wrong([point.values for point in points if point.excluded is None], self.places())
        lines = [*unknown_names(self.spec), *wrong.lines]
        if wrong.absent and dry and not lines and self.settled.needs:
            return wrong.absent
        needs = [f"profiles.{self.settled.profile}.needs: {self.settled.needs}"] if self.settled.needs else []
        told = [*lines, *wrong.absent, *(needs if wrong.absent else [])]
        raise SpecError(self.spec.name, told or [f"base: {reason}"])

    def host_of(self, point: Point) -> tuple[str, ...]:
        fields, _ = setting(self.settled.base, {k: v for k, v in point.values.items() if not k.startswith("reducer")})
        return tuple(str(fields[key]) for key in ("backbone", "checkpoint", "num_classes", "dtype"))

    def cells(self, point: Point, full: Mapping[str, Any] | None) -> list[PlannedCell]:
        """One cell per measure.

        Raises:
            ValueError: why it cannot be run.
        """
        checked, group, cell = self._checked(self.settled.base, point.values)
        planned = PlannedCell(
            point=point,
            group=group,
            method=checked.method,
            budget=self._budget(point),
            report=checked.report,
            share=checked.share,
            full=None if full is None else self._full(full),
            notes=checked.notes,
            learned=checked.learned,
            trained=checked.trained,
            reducer=checked.parameters,
        )
        cells = [replace(cell, measure=measure) for measure in self.settled.base.measures]
        baseline = cell.unreduced.id(group.weights, group.data, None)
        return [
            replace(planned, cell=c, id=c.id(group.weights, group.data, checked.parameters), baseline=baseline)
            for c in cells
        ]

    def _budget(self, point: Point) -> float | None:
        return setting(self.settled.base, {k: v for k, v in point.values.items() if k == "budget"})[0]["budget"]

    def _checked(self, base: BaseSpec, values: Mapping[str, Any]) -> tuple[Checked, Group, Cell]:
        fields, reducer = setting(base, values)
        seed = values.get(SEED, 0)
        clips = clip_settings(fields, seed)
        checked, group = self._check(fields, reducer, seed), self._group(fields, clips)
        cell = Cell(
            backbone=fields["backbone"],
            reducer=checked.reducer,
            clips=clips,
            checkpoint=fields["checkpoint"],
            num_classes=fields["num_classes"],
            batch=fields["batch_size"] or batch_for(group.gmac, group.tokens),
            device=self.device,
            dtype=fields["dtype"],
        )
        return checked, group, cell

    def _check(self, fields: dict[str, Any], reducer: str, seed: int) -> Checked:
        return (self.hosts if self.absent is None else self.checks).check(fields, reducer, seed)

    def _group(self, fields: dict[str, Any], clips: ClipSettings) -> Group:
        return (self.hosts if self.absent is None else self.checks).group(fields, clips)

    def baselines(self, cells: tuple[PlannedCell, ...]) -> tuple[PlannedCell, ...]:
        """The unreduced cells that others are paired with, each once."""
        found: dict[str, PlannedCell] = {}
        for planned in cells:
            if planned.cell is None or planned.baseline is None or planned.baseline in found:
                continue
            fields = {**vars(planned.cell), "budget": None, "allow_untrained": True}
            checked = self._check(fields, "none", 0)
            full = planned.full
            found[planned.baseline] = PlannedCell(
                point=Point({}),
                cell=planned.cell.unreduced,
                id=planned.baseline,
                group=planned.group,
                baseline=planned.baseline,
                method=checked.method,
                report=checked.report,
                share=checked.share,
                full=None if full is None else self.hosts.full({**fields, **self._full_host(full)}, "none"),
                notes=checked.notes,
            )
        return tuple(found.values())

    def _full_host(self, full: FullCost) -> dict[str, Any]:
        return {"backbone": full.backbone, "num_classes": full.num_classes}

    def full_points(self) -> tuple[list[Mapping[str, Any]], list[str]]:
        """For each combination of the axes its values in the profile ``full``, and why there are none."""
        if FULL not in self.spec.profiles:
            return [], []
        full = self.spec.settled(FULL)
        if [length(axis) for axis in full.axes] != [length(axis) for axis in self.settled.axes]:
            return [], ["no costs at full size: the axes of the profile full have other numbers of values"]
        return [point.values for point in expand(replace(full, seeds=(0,)))], []

    def _full(self, values: Mapping[str, Any]) -> FullCost:
        try:
            fields, reducer = setting(self.spec.settled(FULL).base, values)
        except ValueError as error:
            return FullCost("", "", None, None, reason=str(error), values=dict(values))
        return replace(self.hosts.full(fields, reducer), values={k: v for k, v in values.items() if k != SEED})

    def places(self) -> dict[str, str]:
        """Every setting of a point, as a key of an axis -> where it stands in the file."""
        own = self.spec.profiles[self.settled.profile] if self.settled.profile else Profile()
        found: dict[str, str] = {}
        for key in self.checks.fixed:
            inside = key.partition(".")[0] in own.base
            found[key] = f"profiles.{self.settled.profile}.base.{key}" if inside else f"base.{key}"
        for place, axis in enumerate(self.settled.axes):
            inside = place < len(own.axes) and bool(own.axes[place])
            where = f"profiles.{self.settled.profile}.axes[{place}]" if inside else f"axes[{place}]"
            found |= {key: f"{where}.{key}" for key in axis}
        return found
