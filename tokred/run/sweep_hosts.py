"""What a host makes of a reducer, for a grid: each host and each reducer on it once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import nn

from tokred.backbones import adapter_for
from tokred.backbones.convert.digest import weights_digest
from tokred.backbones.geometry import Geometry
from tokred.backbones.spec import BackboneInfo, backbone_info
from tokred.backbones.zoo import create_backbone
from tokred.budget import macs_of, solve
from tokred.data.labels import answerable
from tokred.measure.flops import MacReport, count, unreduced_plan
from tokred.reducer import TokenReducer
from tokred.registry import build, with_settings
from tokred.run.clips import ClipSettings, open_clips
from tokred.run.reducer_digest import reducer_digest
from tokred.run.rows import given_row, solved_row, untrained_row
from tokred.run.sweep_plan import FullCost, Group
from tokred.run.sweep_shapes import shapes_of
from tokred.spec_text import split_outside_brackets

Made = TypeVar("Made")
KEPT_HOSTS = 2
PERMISSION = "base.allow_untrained: true"


@dataclass(frozen=True)
class Host:
    """A backbone with all that planning asks of it; ``unreduced``: its multiply-adds."""

    module: nn.Module
    info: BackboneInfo
    geometry: Geometry
    weights: str
    unreduced: MacReport
    params: int


@dataclass(frozen=True)
class Checked:
    """A reducer that its host takes: ``reducer`` is its full spec, ``parameters`` the digest of what it has
    beyond its settings."""

    reducer: str
    method: str
    report: MacReport | None
    share: float | None
    notes: tuple[str, ...]
    learned: bool
    trained: bool | None
    parameters: str | None


@dataclass
class Hosts:
    """Hosts, what they make of reducers, and the clips that they are given; refusals are remembered too."""

    device: str = "cpu"
    _checked: dict[Any, Checked | ValueError] = field(default_factory=dict)
    _groups: dict[Any, Group | ValueError] = field(default_factory=dict)
    _full: dict[Any, FullCost] = field(default_factory=dict)

    def check(self, fields: dict[str, Any], reducer: str, seed: int) -> Checked:
        """A reducer with the fields of a point.

        Raises:
            ValueError: why the host cannot have it, or not at the budget.
        """
        spec, budget, allowed = seeded(reducer, seed), fields["budget"], fields["allow_untrained"]
        key = (_key(fields), spec, budget, allowed)
        return remembered(self._checked, key, lambda: _check(host_of(*_key(fields)), build(spec), budget, allowed))

    def group(self, fields: dict[str, Any], clips: ClipSettings) -> Group:
        """The host and the clips of a point.

        Raises:
            ValueError: one of them cannot be had.
        """
        key = (_key(fields), clips)
        return remembered(self._groups, key, lambda: _group(fields, host_of(*_key(fields)), clips))

    def full(self, fields: dict[str, Any], reducer: str) -> FullCost:
        """What the fields of a point at full size cost, on shapes alone."""
        key = (fields["backbone"], fields["num_classes"], reducer, fields["budget"])
        if key not in self._full:
            self._full[key] = _full_cost(fields["backbone"], fields["num_classes"], reducer, fields["budget"])
        return self._full[key]


def remembered(table: dict[Any, Made | ValueError], key: Any, make: Callable[[], Made]) -> Made:
    """What is made for a key, once; a refusal is remembered like a result.

    Raises:
        ValueError: why it cannot be made.
    """
    if key not in table:
        try:
            table[key] = make()
        except (ValueError, ImportError, OSError) as error:
            table[key] = ValueError(str(error))
    found = table[key]
    if isinstance(found, ValueError):
        raise found
    return found


def seeded(reducer: str, seed: int) -> str:
    """The spec with the seed in every part that has a setting ``seed`` and was not given one.

    Raises:
        RegistryError: a spec that cannot be built.
    """
    pieces = []
    for piece in split_outside_brackets(reducer, "+"):
        built = build(piece)
        parameter = inspect.signature(type(built).__init__).parameters.get("seed")
        own = parameter is not None and built.config["seed"] == parameter.default
        pieces.append(with_settings(piece, {"seed": seed}) if own else piece)
    return "+".join(pieces)


def _key(fields: dict[str, Any]) -> tuple[str, str | None, int | None, str]:
    return fields["backbone"], fields["checkpoint"], fields["num_classes"], fields["dtype"]


@lru_cache(maxsize=KEPT_HOSTS)
def host_of(backbone: str, checkpoint: str | None, num_classes: int | None, dtype: str) -> Host:
    """A backbone as the cells will have it, on the CPU."""
    module = create_backbone(backbone, checkpoint, num_classes=num_classes).to(getattr(torch, dtype)).eval()
    info = backbone_info(module)
    assert info is not None
    geometry = adapter_for(module).geometry(module)
    unreduced = count(geometry, unreduced_plan(geometry))
    params = sum(parameter.numel() for parameter in module.parameters())
    return Host(module, info, geometry, weights_digest(module), unreduced, params)


def _check(host: Host, reducer: TokenReducer, budget: float | None, allow_untrained: bool) -> Checked:
    row = None if allow_untrained else untrained_row(host.module, host.geometry, reducer, PERMISSION)
    if row is None and budget is None:
        row = given_row(host.module, host.geometry, reducer)
    elif row is None:
        assert budget is not None
        row = solved_row(host.module, host.geometry, reducer, budget)
    if row.model is None:
        raise ValueError(row.reason)
    share = None if row.report is None else row.report.macs / host.unreduced.macs
    parameters = reducer_digest(row.model.reducer)
    return Checked(row.spec, row.method, row.report, share, tuple(row.notes), row.learned, row.trained, parameters)


def _group(fields: dict[str, Any], host: Host, clips: ClipSettings) -> Group:
    source = open_clips(clips, host.info.spec)
    label_sets, notes = answerable(source.label_sets, host.info.spec.label_sets, host.geometry.classes)
    return Group(
        backbone=fields["backbone"],
        checkpoint=fields["checkpoint"],
        num_classes=fields["num_classes"],
        clips=clips,
        weights=host.weights,
        origin=host.info.weights,
        data=source.digest(),
        name=source.name,
        items=len(source),
        unit="image" if host.info.spec.frames == 1 else "clip",
        label_sets=label_sets,
        tasks=host.info.spec.label_sets,
        gmac=host.unreduced.gmac,
        tokens=host.geometry.tokens,
        params=host.params,
        notes=(*host.info.notes, *source.notes, *notes),
    )


def _full_cost(backbone: str, num_classes: int | None, spec: str, budget: float | None) -> FullCost:
    try:
        geometry = shapes_of(backbone, num_classes).geometry
        reducer = build(spec)
        if not reducer.capabilities.static_counts:
            return FullCost(backbone, reducer.spec, None, None, "token counts depend on the content", {}, num_classes)
        if budget is not None:
            solution = solve(reducer, geometry, budget)
            return FullCost(
                backbone, solution.reducer.spec, solution.report.gmac, solution.share, None, {}, num_classes
            )
        report = macs_of(reducer, geometry)
        share = report.macs / count(geometry, unreduced_plan(geometry)).macs
        return FullCost(backbone, reducer.spec, report.gmac, share, None, {}, num_classes)
    except (ValueError, ImportError, OSError) as error:
        return FullCost(backbone, spec, None, None, str(error), {}, num_classes)
