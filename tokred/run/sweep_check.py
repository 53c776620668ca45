"""What is wrong with the points of a grid, one part of a point at a time: a broken part hides no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tokred.budget import macs_of, solve
from tokred.data.opening import ALLOWED
from tokred.registry import build, taken_apart, with_settings
from tokred.run.clips import ClipSettings, open_clips
from tokred.run.grid import KNOB, SEED, reducer_text
from tokred.run.sweep_blame import UNKNOWN, Blame, Values
from tokred.run.sweep_hosts import Checked, Host, Hosts, host_of, remembered, seeded
from tokred.run.sweep_names import is_unknown_backbone, understood
from tokred.run.sweep_plan import Group
from tokred.run.sweep_shapes import Shapes, shapes_of
from tokred.run.sweep_spec import BaseSpec, Settled
from tokred.spec_text import split_outside_brackets

REFUSALS = (ValueError, ImportError, OSError)
ABSENT = "no such file or folder"

HOST = ("backbone", "num_classes", "checkpoint", "dtype")
DATA = (*HOST, "data", "clips", "views", "sampling", "stride", "animate", "corrupt")


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a grid: ``lines``; ``absent``: files that are not there, which need not be for a dry run."""

    lines: tuple[str, ...]
    absent: tuple[str, ...]


@dataclass
class Checks:
    """The parts of a point, each looked at for itself.

    Args:
        settled: the sweep; hosts: what hosts make of reducers, each once.
    """

    settled: Settled
    hosts: Hosts
    _refused: dict[Any, str] = field(default_factory=dict)
    _on_shapes: dict[Any, Checked | ValueError] = field(default_factory=dict)

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """What the base sets for every point, as keys of axes: a method's settings by themselves too."""
        varied = {key for axis in self.settled.axes for key in axis}
        base, default = self.settled.base, BaseSpec()
        names = [name for name in BaseSpec.model_fields if name not in varied and name not in ("measures", "label")]
        found = {name: getattr(base, name) for name in names if getattr(base, name) != getattr(default, name)}
        if "reducer" in found:
            method, knobs = _taken_apart(reducer_text(found["reducer"]))
            found["reducer"] = method
            found |= {f"{KNOB}{key}": value for key, value in knobs.items() if f"{KNOB}{key}" not in varied}
        return found

    def wrong(self, points: Sequence[Values], places: Mapping[str, str]) -> Wrong:
        """Everything that is wrong with points, each setting that is to blame once.

        Args:
            points: the values of all that shall run; places: axis key -> where it stands in the file.
        """
        whole = [{**self.fixed, **point} for point in points]
        lines: list[str] = []
        absent: list[str] = []
        # Without its weights a large backbone would be made with random ones, to find that they change nothing.
        weights = ("checkpoint", "dtype")
        looks = (
            ([self.settings, self.method], lambda key: key not in DATA or key in HOST, weights, lines),
            ([self.host], HOST.__contains__, (), lines),
            ([self.clips], DATA.__contains__, weights, lines),
            ([self.no_checkpoint], ("checkpoint",).__contains__, (), absent),
            ([self.no_data], DATA.__contains__, weights, absent),
        )
        for checks, concerns, still, told in looks:
            parts = [{key: value for key, value in point.items() if concerns(key) and key != SEED} for point in whole]
            blame = Blame(list({str(part): part for part in parts}.values()), still)
            for check in checks:
                blame.find(check)
            told += blame.lines(places, whole)
        return Wrong(tuple(lines), tuple(absent))

    def settings(self, values: Values) -> str | None:
        """The method and its settings, without a host; what has a wrong name in the file itself is told there."""
        known = understood(reducer_text(values.get("reducer", "none")))
        if known is None:
            return UNKNOWN
        try:
            seeded(with_settings(known, _knobs(values)), 0)
        except REFUSALS as error:
            return str(error)
        return None

    def method(self, values: Values) -> str | None:
        """The method on its host, at its budget; on shapes where the weights cannot be had."""
        fields = _fields(values)
        if self.settings(values) is not None or (self._host(fields) is None and self._shapes(fields) is None):
            return UNKNOWN
        known = understood(reducer_text(values.get("reducer", "none")))
        assert known is not None
        try:
            self.check(fields, with_settings(known, _knobs(values)), 0)
        except ValueError as error:
            return str(error)
        return None

    def host(self, values: Values) -> str | None:
        """The backbone and its weights, if there is such a backbone and such a file."""
        fields = _fields(values)
        if is_unknown_backbone(fields["backbone"]) or self.no_checkpoint(values) is not None:
            return UNKNOWN
        return None if self._host(fields) is not None else self._refused[_host_key(fields)]

    def no_checkpoint(self, values: Values) -> str | None:
        """Whether the file of the weights is there."""
        file = _fields(values)["checkpoint"]
        return None if file is None or Path(file).exists() else f"no such file: {file}"

    def clips(self, values: Values) -> str | None:
        """The clips, if they are there."""
        reason = self._clips(values)
        return UNKNOWN if reason is not None and reason.startswith(ABSENT) else reason

    def no_data(self, values: Values) -> str | None:
        """Whether the clips are there."""
        reason = self._clips(values)
        if reason == UNKNOWN:
            data = _fields(values)["data"]
            plain = ":" not in data and bool(data.strip()) and data != BaseSpec().data
            return f"{ABSENT}: {data} (allowed: {ALLOWED})" if plain and not Path(data).exists() else None
        return reason if reason is not None and reason.startswith(ABSENT) else None

    def check(self, fields: dict[str, Any], reducer: str, seed: int) -> Checked:
        """What the host makes of a reducer; on shapes alone where the host cannot be had.

        Raises:
            ValueError: why it cannot be run.
        """
        if self._host(fields) is not None:
            return self.hosts.check(fields, reducer, seed)
        shapes = self._shapes(fields)
        if shapes is None:
            raise ValueError(self._refused[_host_key(fields)])
        key = (fields["backbone"], fields["num_classes"], fields["budget"], reducer, seed)
        return remembered(self._on_shapes, key, lambda: _on_shapes(shapes, seeded(reducer, seed), fields["budget"]))

    def group(self, fields: dict[str, Any], clips: ClipSettings) -> Group:
        """The host and the clips of a point, as far as they can be had.

        Raises:
            ValueError: what is there is wrong.
        """
        shapes = self.shapes(fields)
        if shapes is None and self._clips(fields) is None:
            return self.hosts.group(fields, clips)
        host = self._host(fields)
        spec = host.info.spec if host is not None else shapes.spec if shapes is not None else None
        sizes = host or shapes
        if spec is None or sizes is None:
            raise ValueError(self._refused[_host_key(fields)])
        items = fields["clips"] or 0
        if self._clips(fields) is None:
            items = len(open_clips(clips, spec))
        return Group(
            backbone=fields["backbone"],
            checkpoint=fields["checkpoint"],
            num_classes=fields["num_classes"],
            clips=clips,
            weights=f"of {fields['checkpoint']}",
            origin="not there",
            data=str(clips),
            name=clips.data,
            items=items,
            unit="image" if spec.frames == 1 else "clip",
            label_sets=(),
            tasks=(),
            gmac=sizes.unreduced.gmac,
            tokens=sizes.geometry.tokens,
            params=sizes.params,
            absent=True,
        )

    def shapes(self, fields: dict[str, Any]) -> Shapes | None:
        """The sizes of a host that cannot be had; None of one that can."""
        return None if self._host(fields) is not None else self._shapes(fields)

    def _clips(self, values: Values) -> str | None:
        fields = _fields(values)
        host, shapes = self._host(fields), self.shapes(fields)
        if host is None and shapes is None:
            return UNKNOWN
        try:
            if host is not None:
                self.hosts.group(fields, clip_settings(fields, 0))
            elif shapes is not None:
                open_clips(clip_settings(fields, 0), shapes.spec)
        except REFUSALS as error:
            return str(error)
        return None

    def _host(self, fields: dict[str, Any]) -> Host | None:
        key = _host_key(fields)
        if key not in self._refused:
            try:
                return host_of(*key)
            except REFUSALS as error:
                self._refused[key] = str(error)
        return None

    def _shapes(self, fields: dict[str, Any]) -> Shapes | None:
        try:
            return shapes_of(fields["backbone"], fields["num_classes"])
        except REFUSALS:
            return None  # told by the host, which could not be had either


def _on_shapes(shapes: Shapes, reducer: str, budget: float | None) -> Checked:
    built, report = build(reducer), None
    notes: tuple[str, ...] = ()
    if budget is not None:
        solution = solve(built, shapes.geometry, budget)
        built, report, notes = solution.reducer, solution.report, solution.notes
    elif built.capabilities.static_counts:
        report = macs_of(built, shapes.geometry)
    else:
        built.check(shapes.geometry)
    share = None if report is None else report.macs / shapes.unreduced.macs
    method = built.method or type(built).__name__
    return Checked(built.spec, method, report, share, notes, built.capabilities.trainable, None, None)


def clip_settings(fields: Mapping[str, Any], seed: int) -> ClipSettings:
    """The part of a point's fields that says which clips."""
    return ClipSettings(
        fields["data"],
        fields["clips"],
        (fields["views"][0], fields["views"][1]),
        fields["sampling"],
        fields["stride"],
        seed,
        fields["animate"],
        fields["corrupt"],
    )


def _fields(values: Values) -> dict[str, Any]:
    own = {key: value for key, value in values.items() if key != SEED and not key.startswith(KNOB)}
    return {**BaseSpec().model_dump(), **own}


def _knobs(values: Values) -> dict[str, Any]:
    return {key.removeprefix(KNOB): value for key, value in values.items() if key.startswith(KNOB)}


def _host_key(fields: Mapping[str, Any]) -> tuple[str, str | None, int | None, str]:
    return fields["backbone"], fields["checkpoint"], fields["num_classes"], fields["dtype"]


def _taken_apart(reducer: str) -> tuple[str, dict[str, Any]]:
    """The method of a spec and its settings; a composition stays whole, and so does what cannot be read."""
    known = understood(reducer)
    if known is None or len(split_outside_brackets(known, "+")) > 1:
        return reducer, {}
    try:
        return taken_apart(known)
    except ValueError:
        return reducer, {}
