"""Several reducers on one model, in a stated order.

At a block where two parts act at the same site, the earlier part acts first and the later one sees what is left.
Keep ratios therefore multiply (each step rounded up): keep 0.7 then keep 0.5 leaves ceil(0.5 * ceil(0.7 n)).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from tokred.backbones.geometry import Geometry
from tokred.probe import Probe
from tokred.reducer import Capabilities, Site, SmallerInput, TokenReducer
from tokred.reduction import Reduction
from tokred.schedule import Schedule
from tokred.tokens import Tokens


class ComposeError(ValueError):
    """Reducers that cannot follow each other; the message says why."""


class Composed(TokenReducer):
    """Reducers one after another; see ``compose``."""

    method = "compose"

    def __init__(self, *parts: TokenReducer) -> None:
        super().__init__(Schedule(at=(), drop=0))
        for i, part in enumerate(parts):
            self.add_module(str(i), part)
        self.count = len(parts)
        for i, later in enumerate(parts):
            for earlier in parts[:i]:
                _check_order(earlier, later)
        caps = [part.capabilities for part in parts]
        self.capabilities = Capabilities(
            needs=frozenset().union(*(c.needs for c in caps)),
            changes_length=any(c.changes_length for c in caps),
            stateful=any(c.stateful for c in caps),
            trainable=any(c.trainable for c in caps),
            keeps_frames=all(c.keeps_frames for c in caps),
            keeps_grid=all(c.keeps_grid for c in caps),
            static_counts=all(c.static_counts for c in caps),
            keeps_order=all(c.keeps_order for c in caps),
            identity_at_zero=next((c.identity_at_zero for c in caps if c.identity_at_zero is not True), True),
            channel_blind=all(c.channel_blind for c in caps),
            one_graph=next((c.one_graph for c in caps if c.one_graph is not True), True),
            onnx=next((c.onnx for c in caps if c.onnx is not True), True),
        )

    @property
    def parts(self) -> tuple[TokenReducer, ...]:
        """The reducers in their order."""
        return tuple(part for part in self.children() if isinstance(part, TokenReducer))

    def with_(self, **changes: Any) -> Composed:
        raise ComposeError("a composition has no settings of its own: change its parts and compose them again")

    @property
    def spec(self) -> str:
        return "+".join(part.spec for part in self.parts)

    def reduce(self, tokens: Tokens, probe: Probe, site: Site) -> Reduction | None:
        raise ComposeError("a composition is carried out part by part; call reduce on its parts")

    def check(self, geometry: Geometry) -> list[str]:
        return self._walk(self.parts, geometry)

    def smaller_input(self, geometry: Geometry) -> SmallerInput | None:
        return next((s for part in self.parts if (s := part.smaller_input(geometry)) is not None), None)

    def describe(self, geometry: Geometry) -> list[str]:
        return [line for part in self.parts for line in part.describe(geometry)]

    def prepare(self, geometry: Geometry, host: nn.Module | None = None) -> None:
        for part in self.parts:
            part.prepare(geometry, host)

    def reset(self) -> None:
        for part in self.parts:
            part.reset()


def compose(*reducers: TokenReducer) -> Composed:
    """Several reducers as one, carried out in the given order.

    Args:
        reducers: two or more; at a shared block and site the earlier acts first.
    Raises:
        ComposeError: they cannot work together. Whether an earlier step destroys what a later one needs (equal temporal
            groups) depends on the blocks they act at: that is refused by ``attach``, before any compute.
    """
    flat = [part for reducer in reducers for part in parts_of(reducer)]
    if len(flat) < 2:
        raise ComposeError(f"compose needs at least two reducers, got {len(flat)}")
    return Composed(*flat)


def parts_of(reducer: TokenReducer) -> tuple[TokenReducer, ...]:
    """The reducers that a reducer consists of: itself, or a composition's parts."""
    return reducer.parts if isinstance(reducer, Composed) else (reducer,)


def _check_order(earlier: TokenReducer, later: TokenReducer) -> None:
    shrinks: Iterable[bool] = (type(r).smaller_input is not TokenReducer.smaller_input for r in (earlier, later))
    if all(shrinks):
        raise ComposeError(f"{earlier.spec} and {later.spec} both make the input smaller: use one of them")
    if earlier.capabilities.stateful and later.capabilities.stateful:
        raise ComposeError(f"{earlier.spec} and {later.spec} both keep state between forwards")
