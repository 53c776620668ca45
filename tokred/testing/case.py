"""One reducer on one backbone, at a strength at which it does something: what every check is given."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tokred.advance import advance
from tokred.attach import Attached, attach
from tokred.backbones.adapter import Unsupported
from tokred.backbones.geometry import Geometry
from tokred.driver import Action, run_blocks
from tokred.dry import dry_run
from tokred.plan import Plan
from tokred.probe import Probe
from tokred.reducer import Promise, Site, TokenReducer
from tokred.reduction import Reduction
from tokred.schedule import Schedule, ScheduleError, Step
from tokred.testing.failures import Broken, NotApplicable
from tokred.testing.hosts import Backbone
from tokred.testing.writes import copied, given, written
from tokred.tokens import Tokens, sample_seeds, spread

Decide = Callable[[Action, Tokens, Probe, Site], Reduction | None]
Subject = TokenReducer | type[TokenReducer]


@dataclass(frozen=True)
class Seen:
    """One step as it happened: the tokens before and after, the decision (None = nothing done), and the names of what
    the reducer wrote on, of all that it was given ("" = nothing)."""

    site: Site
    reducer: TokenReducer
    before: Tokens
    after: Tokens
    reduction: Reduction | None
    touched: str


class Case:
    """A reducer at work on a backbone.

    Attributes:
        host: the bare model, in eval mode; clips: a batch of inputs.
        reducer: at a strength that reduces; zero: the same at its weakest, None when it declares no strength.
        backbone: the backbone's name.
    """

    def __init__(self, subject: Subject, backbone: Backbone) -> None:
        """Raises: NotApplicable: the backbone is refused, with the reason."""
        self.backbone = backbone.name
        self.host, self.clips = backbone.build()
        given = construct(subject)
        try:
            attached = attach(self.host, given)
            self.geometry: Geometry = self._sized(attached)
            self.zero = at_share(given, self.geometry, 0.0)
            self.reducer = given if _acts(given, attached) else at_share(given, self.geometry, 0.4) or given
            attach(self.host, self.reducer)
        except (Unsupported, ScheduleError) as error:
            raise NotApplicable(f"{backbone.name} refuses {given.spec}: {error}") from error

    @torch.no_grad()
    def _sized(self, attached: Attached) -> Geometry:
        """The geometry at the size of the clips: some hosts do not say which size they are for."""
        grid = attached.adapter.embed(self.host, self.clips[:1], None).grid
        return attached.geometry if grid == attached.geometry.grid else replace(attached.geometry, grid=grid)

    def plan(self, fast: Attached) -> Plan | None:
        """The plan of an attached reducer at the size of the clips; None where the content decides."""
        if fast.plan is None or fast.geometry.grid == self.geometry.grid:
            return fast.plan
        return dry_run(fast.reducer, self.geometry)

    def fresh(self) -> nn.Module:
        """A copy of the bare model that may be changed."""
        return copy.deepcopy(self.host)

    def attach(self, reducer: TokenReducer | None = None, host: nn.Module | None = None) -> Attached:
        """The host, or another model, with the reducer, or another one."""
        return attach(self.host if host is None else host, self.reducer if reducer is None else reducer)

    @torch.no_grad()
    def bare(self, clips: Tensor | None = None) -> Tensor:
        """Logits of the bare host."""
        return logits_of(self.host(self.clips if clips is None else clips))

    @torch.no_grad()
    def logits(self, fast: nn.Module | None = None, clips: Tensor | None = None) -> Tensor:
        """Logits with the reducer; for stateful ones those of a video's first frame."""
        fast = self.attach() if fast is None else fast
        if isinstance(fast, Attached):
            fast.reset()
        return logits_of(fast(self.clips if clips is None else clips))

    @torch.no_grad()
    def watch(
        self,
        fast: Attached | None = None,
        clips: Tensor | None = None,
        *,
        frames: bool = True,
        decide: Decide = lambda action, tokens, probe, site: action.reducer.reduce(tokens, probe, site),
    ) -> list[Seen]:
        """Run the blocks and look at each step, also those at which the reducer does nothing.

        Args:
            frames: whether the tokens know their temporal groups; decide: how the reducer is asked.
        """
        fast = self.attach() if fast is None else fast
        pixels = self.clips if clips is None else clips
        fast.reset()
        seen: list[Seen] = []

        def look(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
            shown = given(tokens, probe)
            before = copied(shown)
            reduction = decide(action, tokens, probe, site)
            touched = written(before, shown)
            after = tokens if reduction is None else advance(tokens, reduction)
            seen.append(Seen(site, action.reducer, tokens, after, reduction, touched))
            return after, reduction

        tokens = fast.adapter.embed(fast.host, pixels, fast.reducer.smaller_input(fast.geometry))
        seeded = "sample_seed" in fast.reducer.capabilities.needs
        seeds = spread(sample_seeds(pixels), tokens.x.shape[0]) if seeded else None
        groups = tokens.groups if frames else None
        tokens = replace(tokens, groups=groups, sample_seed=seeds)
        for step in fast.adapter.steps(fast.host, tokens) if fast.reducer.capabilities.stateful else [tokens]:
            run_blocks(
                fast.adapter,
                fast.host,
                step,
                fast._actions,
                proportional=fast._proportional,
                perform=look,
            )
        return seen

    def decisions(self, fast: Attached | None = None, clips: Tensor | None = None) -> list[Tensor]:
        """Where each step sent each token, (B, N) each."""
        return [s.reduction.positions() for s in self.watch(fast, clips) if s.reduction is not None]

    def strengths(self, count: int) -> list[TokenReducer]:
        """The reducer at ``count`` strengths from its weakest to its strongest."""
        found = [at_share(self.reducer, self.geometry, i / (count - 1)) for i in range(count)]
        return [reducer for reducer in found if reducer is not None]


class Halve(TokenReducer):
    """Keeps the first half of the patch tokens after one block: a partner for compositions."""

    site = "after_block"

    def __init__(self, block: int) -> None:
        super().__init__(Schedule(at=(block,), keep=0.5))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        from tokred.reducer import keep_patches

        index = torch.arange(site.left(tokens.patch_count), device=tokens.x.device)
        return keep_patches(tokens, index.expand(tokens.x.shape[0], -1))


class Reader(TokenReducer):
    """Changes nothing, and makes every block be taken apart."""

    site = "after_attention"

    def __init__(self) -> None:
        super().__init__(Schedule(tokens=1))

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        return None

    def promise(self, step: Step, count: int, groups: int | None, geometry: Geometry) -> Promise:
        return Promise(count, groups)


def at_share(reducer: TokenReducer, geometry: Geometry, share: float) -> TokenReducer | None:
    """The reducer at a share of its range of strengths on a backbone; None when it declares none.

    Raises:
        ScheduleError: the backbone has no range for it.
    """
    if not reducer.strength or reducer.schedule.kind == "tokens":
        return None
    strength = reducer.strength_range(geometry)
    value = strength.strongest if share == 1 else strength.weakest + share * (strength.strongest - strength.weakest)
    if 0 < share < 1:
        value = round(value, 0 if strength.whole else 3)
    return reducer.with_(**{strength.name: int(value) if strength.whole else value})


def construct(subject: Subject) -> TokenReducer:
    """An instance: the given one, or the class with its defaults."""
    if isinstance(subject, TokenReducer):
        return subject
    if not (isinstance(subject, type) and issubclass(subject, TokenReducer)):
        raise TypeError(f"check_reducer takes a TokenReducer or its class, got {subject!r}")
    make: Callable[[], TokenReducer] = subject
    try:
        return make()
    except TypeError as error:
        raise Broken(
            f"{subject.__name__}() to work, so that the method can be listed and compared (or an instance to check)",
            f"TypeError: {error}",
        ) from error


def logits_of(output: Any) -> Tensor:
    """The logits in what a host returns: themselves, or the field of that name."""
    return output if isinstance(output, Tensor) else output.logits


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest magnitude of b where that is above one; infinite for other shapes
    or where only one is not finite."""
    if a.shape != b.shape:
        return float("inf")
    gap = (a.double() - b.double()).abs()
    gap = torch.where(a == b, torch.zeros_like(gap), gap)  # also equal infinities
    worst = (gap / b.double().abs().amax().clamp_min(1.0)).amax().item() if gap.numel() else 0.0
    return worst if worst == worst else float("inf")


def same_decisions(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether two runs sent every token to the same place."""
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _acts(reducer: TokenReducer, attached: Attached) -> bool:
    """Whether the reducer does anything at these settings."""
    if attached.plan is None:
        return True
    return bool(attached.plan.steps) or reducer.smaller_input(attached.geometry) is not None
