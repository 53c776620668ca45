"""One reducer on one drawn example: what every step-level clause looks at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tokred.advance import advance
from tokred.compose import parts_of
from tokred.driver import Action, Actions, actions_of, run_block
from tokred.probe import Probe
from tokred.reducer import Promise, Site, TokenReducer
from tokred.reduction import Reduction
from tokred.schedule import ScheduleError
from tokred.testing.case import Seen
from tokred.testing.example import StepExample
from tokred.testing.failures import Broken
from tokred.testing.stand_in import StandIn, View
from tokred.testing.writes import copied, given, written
from tokred.tokens import Tokens

PLAIN = View()


class Refused(Exception):
    """The reducer refuses the example before any compute, or has no step there; the message is the reason."""


class _Late(Broken):
    """Refused by ``reduce``, where the promise was made."""


class Ran(NamedTuple):
    """One run: the steps with what was promised for each, and the tokens after the last block that ran."""

    steps: tuple[Seen, ...]
    promises: tuple[Promise | None, ...]
    tokens: Tokens

    @property
    def decisions(self) -> list[Tensor]:
        """Where each step sent each token, (B, N) each."""
        return [step.reduction.positions() for step in self.steps if step.reduction is not None]


@dataclass
class Trial:
    """A reducer on an example.

    Attributes:
        reducer: at the example's strength; example: what is looked at; weakest: the reducer at strength zero, None
            when it declares none.
    """

    reducer: TokenReducer
    example: StepExample
    weakest: TokenReducer | None = None

    def __post_init__(self) -> None:
        """Raises: Refused: with the reason."""
        self.geometry = self.example.geometry
        self.actions = self._actions(self.reducer)
        acting = [block for block, at in enumerate(self.actions) if at]
        if not acting:
            raise Refused(f"{self.reducer.spec} has no step here")
        last = self.geometry.depth - 1
        whole = self.example.step is None or self.example.windows
        block = acting[(self.example.step or 0) % len(acting)]
        self.blocks = range(last + 1) if whole else range(block, block + 1)
        self._first = acting[0]
        self._views: dict[View, Ran] = {}
        self._drawn: dict[Any, Any] = {}

    @property
    def plain(self) -> Ran:
        """The run that most clauses look at, once."""
        return self.view(PLAIN)

    def view(self, view: View) -> Ran:
        """A run on the example shown in a way, once: clauses that look at the same one share it."""
        if view not in self._views:
            self._views[view] = self.run(view)
        return self._views[view]

    @property
    def reduced(self) -> list[tuple[str, Seen, Reduction]]:
        """Its steps that decided something, each with a name for messages."""
        named = ((f"the step at block {s.site.block}", s) for s in self.plain.steps)
        return [(where, s, s.reduction) for where, s in named if s.reduction is not None]

    def run(self, view: View = PLAIN, reducer: TokenReducer | None = None, *, fresh: bool = True) -> Ran:
        """Run the blocks on the example's content; a method that remembers sees another frame first.

        Args:
            view: how the content is shown; reducer: another one; fresh: whether what it remembers is forgotten first.
        Raises:
            Refused: the reducer refuses what earlier steps left. Broken: it refuses where its promise did not.
        """
        chosen = self.reducer if reducer is None else reducer
        actions = self.actions if reducer is None else self._actions(reducer)
        if fresh:
            chosen.reset()
            if chosen.capabilities.stateful:
                self._once(chosen, actions, replace(view, frame=view.frame + 1))
        try:
            return self._once(chosen, actions, view)
        except _Late:
            if self.blocks.start <= self._first:
                raise
            # A step may need what an earlier one of its own set aside.
            self.blocks = range(self._first, self.blocks.stop)
            return self._once(chosen, actions, view)

    @torch.no_grad()
    def _once(self, reducer: TokenReducer, actions: Actions, view: View) -> Ran:
        adapter = StandIn(self.example, view, self._drawn)
        tokens = adapter.tokens()
        steps: list[Seen] = []
        promises: list[Promise | None] = []

        def look(action: Action, tokens: Tokens, probe: Probe, site: Site) -> tuple[Tokens, Reduction | None]:
            promises.append(self._promise(action, tokens))
            shown = given(tokens, probe)
            before = copied(shown)
            try:
                reduction = action.reducer.reduce(tokens, probe, site)
            except ScheduleError as error:
                raise _Late("impossible settings to be refused by promise, before any compute", str(error)) from error
            touched = written(before, shown)
            try:
                after = tokens if reduction is None else advance(tokens, reduction)
            except ScheduleError as error:  # the host cannot carry out such a reduction: models refuse it, too
                raise Refused(str(error)) from error
            steps.append(Seen(site, action.reducer, tokens, after, reduction, touched))
            return after, reduction

        proportional = any(part.proportional for part in parts_of(reducer))
        host = nn.Identity()
        for block in self.blocks:
            try:
                tokens, _ = run_block(adapter, host, block, tokens, actions[block], proportional, look)
            except ScheduleError as error:
                raise Refused(str(error)) from error
        return Ran(tuple(steps), tuple(promises), tokens)

    def _actions(self, reducer: TokenReducer) -> Actions:
        try:
            reducer.prepare(self.geometry)
            reducer.eval()  # what is promised holds at inference: learned methods mask in training
            return actions_of(parts_of(reducer), self.geometry)
        except ValueError as error:
            raise Refused(str(error)) from error

    def _promise(self, action: Action, tokens: Tokens) -> Promise | None:
        if not action.reducer.capabilities.static_counts:
            return None
        geometry = replace(self.geometry, grid=tokens.grid)
        try:
            return action.reducer.promise(action.step, tokens.patch_count, tokens.groups, geometry)
        except ScheduleError as error:
            raise Refused(str(error)) from error
