"""Token counts and reduction costs without running a model: the driver itself, on a backbone
that computes nothing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tokred.advance import advance
from tokred.backbones.adapter import Adapter, Attended, Crossed, Fed, cross_to
from tokred.backbones.geometry import Geometry
from tokred.compose import parts_of
from tokred.cover import Cover
from tokred.driver import Action, actions_of, run_blocks
from tokred.macs import MacCounter
from tokred.measure.stage_flops import window_pairs
from tokred.plan import Plan, StepCount
from tokred.probe import Probe
from tokred.reducer import Site, SmallerInput, TokenReducer
from tokred.reduction import Reduction
from tokred.saliency import RowStatistics, RowsWanted
from tokred.schedule import ScheduleError
from tokred.tokens import Grid, Tokens


class DryAdapter(Adapter):
    """A backbone of the given geometry that computes nothing: every half block returns its input."""

    name = "dry run"

    def __init__(self, geometry: Geometry, device: str) -> None:
        self._geometry = geometry
        self.device = torch.device(device)
        self.statistics_macs = 0

    def accepts(self, model: nn.Module) -> bool:
        return False

    def check(self, model: nn.Module) -> None:
        return

    def geometry(self, model: nn.Module) -> Geometry:
        return self._geometry

    def read_input(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        return torch.empty(0)

    def embed(self, model: nn.Module, pixels: Tensor, smaller: SmallerInput | None) -> Tokens:
        g = self._geometry
        grid = g.grid if smaller is None else smaller.grid
        x = self._fill(1, g.prefix + grid.patches, g.dim)
        seed = torch.zeros(1, dtype=torch.int64, device=self.device)
        cover = Cover.whole(grid, 1, self.device, g.stages[0].window) if g.stages else None
        return Tokens(x, grid, g.prefix, groups=grid.t, sample_seed=seed, class_token=g.class_token, cover=cover)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        return [nn.Identity()] * self._geometry.depth

    def attend(
        self, block: nn.Module, tokens: Tokens, log_size: Tensor | None, wanted: RowsWanted | None = None
    ) -> Attended:
        x = tokens.x
        g = self._geometry.at(x.shape[2], tokens.grid)
        q, k, v = (self._fill(x.shape[0], g.heads, x.shape[1], g.head_dim) for _ in range(3))
        statistics = _NoStatistics(self, tokens) if g.stages else None
        rows = (
            None
            if wanted is None or g.stages
            else _NoRows(self, x, g.heads * g.head_dim, log_size is not None, wanted.row_mass is not None)
        )
        return Attended(x, q, k, v, g.head_dim**-0.5, statistics=statistics, rows=rows)

    def cross(self, model: nn.Module, index: int, tokens: Tokens) -> Crossed | None:
        g = self._geometry
        if not g.ends_stage(index):
            return None
        assert tokens.cover is not None
        stage = g.stages[g.stage_of(index + 1)]
        return cross_to(tokens, self._fill(1, tokens.grid.halved.patches, stage.dim), stage.window)

    def feed(self, block: nn.Module, x: Tensor) -> Fed:
        return Fed(x, x)

    def token_parts(self, block: nn.Module) -> None:
        return None

    def features(self, model: nn.Module, tokens: Tokens, pool: str) -> Tensor:
        return tokens.x

    def classify(self, model: nn.Module, features: Tensor, tokens: Tokens, pool: str) -> Tensor:
        return features

    def _fill(self, *shape: int) -> Tensor:
        return torch.ones(*shape, device=self.device)


class _NoRows:
    """Constant row statistics of all tokens; what a pass over all rows costs is added up on the adapter when they are
    read, as if the statistics had passes of their own."""

    def __init__(self, adapter: DryAdapter, x: Tensor, width: int, biased: bool, weighted: bool) -> None:
        self._adapter = adapter
        self._row = x[..., 0]
        self._macs = x.shape[1] ** 2 * width
        self._biased = biased
        self._weighing = x.shape[1] ** 2 if weighted else 0
        self._passes: set[bool] = set()

    @property
    def received(self) -> Tensor:
        self._adapter.statistics_macs += self._weighing  # each row by its mass
        self._weighing = 0
        return self._read(self._biased)

    @property
    def negative_entropy(self) -> Tensor:
        return self._read(False)

    @property
    def sharpness(self) -> Tensor:
        return self._read(False)

    def _read(self, biased: bool) -> Tensor:
        if biased not in self._passes:
            self._passes.add(biased)
            self._adapter.statistics_macs += self._macs
        return self._row


class _NoStatistics:
    """Constant attention statistics: what decisions are taken does not matter to their number. Their cost is added up
    on the adapter: the scores of all windows, padding included."""

    def __init__(self, adapter: DryAdapter, tokens: Tokens) -> None:
        assert tokens.cover is not None
        pairs, _ = window_pairs(tokens.grid, tokens.cover.window)
        self._adapter = adapter
        self._macs = pairs * tokens.x.shape[2]

    def rows(self, q: Tensor, k: Tensor, scale: float, *, received: bool, entropy: bool) -> RowStatistics:
        self._adapter.statistics_macs += self._macs
        row = k[:, 0, :, 0]
        return RowStatistics(row if received else None, *(row if entropy else None for _ in range(2)))


def dry_run(reducer: TokenReducer, geometry: Geometry, grid: Grid | None = None, *, device: str = "cpu") -> Plan:
    """The plan of a reducer on a backbone, without running it.

    Args:
        geometry: sizes of the backbone; grid: another input grid than the native one.
        device: "cpu" runs the steps on constant features (milliseconds); "meta" on shapes alone: cheaper on large
            models, but its first use in a process loads torch's tracing modules, which takes seconds.
    Raises:
        ScheduleError: impossible settings, with the numbers; counts that depend on the content.
    """
    if not reducer.capabilities.static_counts:
        raise ScheduleError(f"{reducer.spec}: token counts depend on the content; measure them on clips")
    if "class_token" in reducer.capabilities.needs and not geometry.has_class_token:
        raise ScheduleError(f"{reducer.spec} needs a class token; this backbone has none")
    if grid is not None:
        geometry = replace(geometry, grid=grid)
    notes = tuple(reducer.check(geometry))
    if any(held.is_meta for held in (*reducer.parameters(), *reducer.buffers())):
        device = "meta"
    try:
        return _dry_run(_stand_in(reducer, geometry, device), geometry, notes, device)
    except NotImplementedError:
        # A reducer may use an operation that has no shape rule; on real tokens it must work.
        return _dry_run(_stand_in(reducer, geometry, "cpu"), geometry, notes, "cpu")


def _stand_in(reducer: TokenReducer, geometry: Geometry, device: str) -> TokenReducer:
    """The reducer for a dry run; a copy where state or parameters would change, in the mode that counts, with its
    parameters where the dry run's features are."""
    held = [*reducer.parameters(), *reducer.buffers()]
    if not (reducer.capabilities.stateful or reducer.capabilities.trainable or held or reducer.training):
        return reducer
    copied = copy.deepcopy(reducer).eval()
    copied.prepare(geometry)
    return copied.to(device, torch.float32)


@torch.no_grad()
def _dry_run(reducer: TokenReducer, geometry: Geometry, notes: tuple[str, ...], device: str) -> Plan:
    adapter = DryAdapter(geometry, device)
    parts = parts_of(reducer)
    steps: list[StepCount] = []

    def count(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
        published = action.reducer.macs(tokens.count, geometry.at(tokens.x.shape[2], tokens.grid), action.step)
        counter, statistics = MacCounter(), adapter.statistics_macs
        with counter:
            reduction = action.reducer.reduce(tokens, probe, site)
            after = tokens if reduction is None else advance(tokens, reduction)
        ran = counter.macs + adapter.statistics_macs - statistics
        if reduction is not None:
            steps.append(
                StepCount(
                    site.block, site.name, tokens.count, after.count, ran if published is None else published, ran
                )
            )
        return after, reduction

    host = nn.Identity()
    entering = adapter.embed(host, torch.empty(0), reducer.smaller_input(geometry))
    tokens, counts = run_blocks(
        adapter,
        host,
        entering,
        actions_of(parts, geometry),
        proportional=any(part.proportional for part in parts),
        perform=count,
    )
    return Plan(
        embedded=entering.grid.patches,
        attention=tuple(c.attention for c in counts),
        mlp=tuple(c.mlp for c in counts),
        final=tokens.count,
        steps=tuple(steps),
        notes=notes,
        queries=tuple(c.queries for c in counts) if geometry.stages else (),
        grid=entering.grid if geometry.stages else None,
        reused=sum(part.reused(geometry, tuple(c.attention for c in counts)) for part in parts),
        grids=tuple(c.grid for c in counts) if geometry.stages else (),
        light=tuple(c.light for c in counts) if any(c.light for c in counts) else (),
    )
